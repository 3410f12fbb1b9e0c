"""An edge and a stream, coupled: what comes in at one goes out at the other, and so does how it ends.

Theory of operation. Two directions, each of which ends for itself: the peer's EOF becomes END, END becomes the edge's
end. Whatever ends otherwise ends both directions on both sides, as RESET and as RST. After both have ended in good
order the last bytes still have to leave, through the edge and through the stream: a good end is one after that, and
`is_over` comes then, or when it takes too long. So where the edge's direction is the last to end, its END is held back
until the edge is gone: the far side, which may still have a peer to tell, shall not hear of a good end before it is
one.

Back-pressure goes through: while the stream's queue is full nothing is read from the edge; while the edge is full,
bytes that came out of the tunnel are not consumed, so their credit does not come back.

No task and no object per chunk; the idle timer is lazy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from shared.errors import BY_WIRE, FAULTS, Fault
from shared.timers import LazyTimer

if TYPE_CHECKING:
    from shared.protocol import StreamEnd
    from shared.tcp.edge import Edge

LAST_WORDS: Final = 60.0
"""Seconds without progress that the last bytes may take to leave, once both directions have ended."""

_LOST: Final = FAULTS["connector-error"]


def who_ended(*, has_sender: bool, has_target: bool) -> str:
    """For access lines: whose direction had ended well, "both", "sender", "target" or "none"."""
    return ("both" if has_target else "sender") if has_sender else "target" if has_target else "none"


class Splice:
    """One connection. A subclass makes edge and stream, sets `idle`, and says in `settle` what its end means.

    `received` and `sent` count the edge's bytes; `fault` is None after a good end. Also an `EdgeHandler`, and a
    `StreamHandler` once the stream is open.
    """

    __slots__ = (
        "_is_leaving", "_owes_end", "_progress", "_stream", "_time", "_timer", "_unreturned", "edge", "fault",
        "has_edge_ended", "has_stream_ended", "idle", "is_over", "received", "sent",
    )  # fmt: skip

    IDLE: Fault
    """What an idle connection ends with."""
    EDGE_LOST: Fault
    """What a connection ends with whose edge was reset by its peer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, time: Callable[[], float], idle: float) -> None:
        self.edge: Edge | None = None
        self.fault: Fault | None = None
        self.idle = idle
        self.received = self.sent = 0
        self.has_edge_ended = self.has_stream_ended = self.is_over = False
        self._owes_end = self._is_leaving = False
        self._stream: StreamEnd | None = None
        self._unreturned = 0
        self._time = time
        self._progress = time()
        self._timer = LazyTimer(loop, self._on_timer)

    def settle(self) -> None:
        """The connection is over: give back what it took, count it, log it. Called once."""
        raise NotImplementedError

    def fail(self, fault: Fault, *, refused: bool = False) -> None:
        """End both sides at once."""
        if self.is_over:
            return
        stream, self._stream = self._stream, None
        if stream is not None:
            self._return_credit(stream)
            stream.reset(fault.wire, refused)
        if self.edge is not None:
            self.edge.reset()
        self.finish(fault)

    def finish(self, fault: Fault | None) -> None:
        """Nothing is left to be done on either side."""
        if not self.is_over:
            self.is_over = True
            self.fault = fault
            self._stream = None
            self._timer.close()
            self.settle()

    # What the edge calls.

    def on_bytes(self, data: bytes) -> None:
        """See EdgeHandler."""
        self.received += len(data)
        stream = self._stream
        if stream is None:
            return
        self._progress = self._time()
        stream.send(data)
        if not stream.is_writable and self.edge is not None:
            self.edge.pause_reading()

    def on_eof(self) -> None:
        """See EdgeHandler."""
        self.has_edge_ended = True
        if self._stream is not None:
            self._progress = self._time()
            if self.has_stream_ended:
                self._owes_end = True
                self._look_at_end()
            else:
                self._stream.send(b"", end=True)

    def on_drained(self) -> None:
        """See EdgeHandler."""
        stream = self._stream
        if stream is not None:
            self._progress = self._time()
            self._return_credit(stream)

    def on_lost(self, error: Exception | None) -> None:
        """See EdgeHandler."""
        self.edge = None
        if self.is_over:
            return
        stream = self._stream
        if error is None and self.has_stream_ended and self.has_edge_ended and stream is not None:
            self._is_leaving = True
            self._return_credit(stream)
            if self._owes_end:
                stream.send(b"", end=True)
            self._leave(stream)
        else:
            self.fail(self.EDGE_LOST)

    # What the stream calls.

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """See StreamHandler; only at the opener."""

    def on_data(self, data: bytes, end: bool) -> None:
        """See StreamHandler."""
        edge, stream = self.edge, self._stream
        if edge is None or stream is None:
            return
        self._progress = self._time()
        if data:
            self._pass_on(edge, stream, data)
        if end:
            self.has_stream_ended = True
            edge.end()
            self._look_at_end()

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler."""
        self._stream = None
        if self.is_over:
            return
        if self.edge is not None:
            self.edge.reset()
        self.finish(self.fault_of(wire_code, refused))

    def on_writable(self) -> None:
        """See StreamHandler."""
        self._progress = self._time()
        if self.edge is not None:
            self.edge.resume_reading()
        elif self._is_leaving and self._stream is not None:
            self._leave(self._stream)

    # Within.

    def fault_of(self, wire_code: int, refused: bool) -> Fault:
        """What a RESET of the other side, which may be hostile, is taken for."""
        return BY_WIRE.get(wire_code, _LOST)

    def watch(self) -> None:
        """From now on an idle connection ends."""
        self._progress = self._time()
        self._timer.set(self._progress + self.idle)

    def _pass_on(self, edge: Edge, stream: StreamEnd, data: bytes) -> None:
        size = len(data)
        self.sent += size
        edge.write(data)
        if edge.is_full:
            self._unreturned += size
        else:
            stream.consumed(size)

    def _return_credit(self, stream: StreamEnd) -> None:
        unreturned, self._unreturned = self._unreturned, 0
        if unreturned:
            stream.consumed(unreturned)

    def _leave(self, stream: StreamEnd) -> None:
        """The edge is gone in good order."""
        if stream.is_sent:
            self.finish(None)

    def _look_at_end(self) -> None:
        if self.has_edge_ended and self.has_stream_ended and not self.is_over:
            self._timer.set(self._progress + min(self.idle, LAST_WORDS))

    def _on_timer(self) -> None:
        patience = self.idle
        if self.has_edge_ended and self.has_stream_ended:
            patience = min(patience, LAST_WORDS)
        due = self._progress + patience
        if self._time() < due:
            self._timer.set(due)
        else:
            self.fail(self.IDLE)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} in={self.received}{' ended' if self.has_edge_ended else ''} out={self.sent}"
            f"{' ended' if self.has_stream_ended else ''} {self.fault.code if self.fault else self.is_over}>"
        )
