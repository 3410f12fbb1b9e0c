"""One push inside a tunnel.

Theory of operation. A stream has two halves, one a direction; the relay opens it, the connector answers. A half waits
for its head (WAITING), carries bytes (OPEN), and is over (ENDED). The relay's sending half begins with OPEN, the
connector's with ANSWER, so half-close falls out of the model: each half ends for itself. RESET ends both at once from
any state and is therefore not in the table. What is not in the table is a violation, and ends the tunnel when the peer
committed it.

             DATA             DATA+END
    OPEN ───────────▶ OPEN ───────────▶ ENDED

                INTERIM              ANSWER            (as above)
    WAITING ───────────▶ WAITING ───────────▶ OPEN ───────────▶ …
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from shared.protocol.credit import ReceiveWindow
from shared.protocol.frames import MAX_HEAD

if TYPE_CHECKING:
    from shared.protocol.connection import Connection


class Half(enum.IntEnum):
    """The state of one direction of a stream."""

    WAITING = 0
    OPEN = 1
    ENDED = 2


class Event(enum.IntEnum):
    """What can happen to one direction of a stream."""

    INTERIM = 0
    ANSWER = 1
    ANSWER_END = 2
    DATA = 3
    DATA_END = 4


TRANSITIONS: Final[dict[tuple[Half, Event], Half]] = {
    (Half.WAITING, Event.INTERIM): Half.WAITING,
    (Half.WAITING, Event.ANSWER): Half.OPEN,
    (Half.WAITING, Event.ANSWER_END): Half.ENDED,
    (Half.OPEN, Event.DATA): Half.OPEN,
    (Half.OPEN, Event.DATA_END): Half.ENDED,
}
"""Both sides' table, for sending and for receiving alike."""

# The same table by number: two list accesses a frame, no hashing.
_NEXT: Final = [[TRANSITIONS.get((half, event)) for event in Event] for half in Half]
_WAITING, _OPEN, _ENDED = Half.WAITING, Half.OPEN, Half.ENDED


class StreamHandler(Protocol):
    """What a stream calls. The bytes it hands over count against credit and memory until `Stream.consumed`."""

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """At the opener: the answer's head and the first of its body. Interim ones (1xx) come before, without a
        body."""

    def on_data(self, data: bytes, end: bool) -> None:
        """More of the peer's half; `data` is empty when only the end came."""

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """Both halves are over, by the peer, by a lost tunnel or by our own budget. `refused`: surely nothing went to
        the target.

        The last call. It may come even after the peer's end, while bytes are still waiting to be consumed.
        """

    def on_writable(self) -> None:
        """The queue fell below its mark after `is_writable` had been False, or became shorter after `is_sent` had been:
        ask again."""


class StreamEnd(Protocol):
    """What a stream's handler calls: a seam, so that a handler needs no tunnel to be tried."""

    handler: StreamHandler

    @property
    def deadline(self) -> float:
        """The loop's time after which nobody waits for the answer; 0.0 for none."""

    @property
    def was_sent(self) -> bool:
        """Whether anything of it may have reached the peer."""

    @property
    def is_writable(self) -> bool:
        """Whether the queue is below its mark; if not, `on_writable` will follow."""

    @property
    def is_sent(self) -> bool:
        """Whether all that was queued is on its way, the end included; if not, `on_writable` follows as more is."""

    def answer(self, head: bytes, body: bytes = b"", end: bool = False, interim: bool = False) -> None:
        """At the acceptor: send the answer's head, perhaps with all of its body, and the end."""

    def send(self, data: bytes, end: bool = False) -> None:
        """Queue bytes, of any number; with `end` they are the last."""

    def reset(self, wire_code: int, refused: bool = False) -> None:
        """End both halves at once."""

    def consumed(self, n: int) -> None:
        """The reader is done with `n` of the bytes handed over."""


class Stream:
    """One side's end of a stream. Every call is synchronous; after a reset, or the end of both halves, calls do
    nothing."""

    __slots__ = (
        "_chunks", "_connection", "_end_queued", "_offset", "_receiving", "_sending", "buffered", "credit", "deadline",
        "handler", "held_head", "id", "is_finished", "is_queued", "pending_head", "progress_at", "receive_window",
        "sent_bytes", "unconsumed", "wants_sent", "wants_writable",
        "was_sent",
    )  # fmt: skip

    def __init__(self, connection: Connection, credit: int, *, is_opener: bool, now: float) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        self._end_queued = False
        self._receiving = _WAITING if is_opener else _OPEN
        self._sending = _OPEN if is_opener else _WAITING
        self.id = 0
        self.handler: StreamHandler = NO_HANDLER
        self.deadline = 0.0
        self.pending_head: bytes | None = None
        self.credit = credit
        self.receive_window: ReceiveWindow | None = None
        self.buffered = 0
        self.unconsumed = 0
        self.sent_bytes = 0
        self.held_head = 0
        """At the acceptor: bytes of the push's head, which its reader holds until the end."""
        self.progress_at = now
        self.was_sent = False
        self.is_queued = False
        self.is_finished = False
        self.wants_writable = False
        self.wants_sent = False

    def __repr__(self) -> str:
        return (
            f"<Stream {self.id} sending={self._sending.name} receiving={self._receiving.name} "
            f"buffered={self.buffered} unconsumed={self.unconsumed} credit={self.credit}>"
        )

    # What the application calls.

    @property
    def is_writable(self) -> bool:
        """Whether the queue is below its mark; if not, `on_writable` will follow."""
        if self.buffered < self._connection.settings.stream_high_water:
            return True
        self.wants_writable = True
        return False

    @property
    def is_sent(self) -> bool:
        """Whether all that was queued is on its way, the end included; if not, `on_writable` follows as more is."""
        if self.is_finished or not self.has_output:
            return True
        self.wants_sent = True
        return False

    @property
    def held_bytes(self) -> int:
        """Bytes that this stream makes the process hold."""
        return self.buffered + self.unconsumed + self.held_head

    def answer(self, head: bytes, body: bytes = b"", end: bool = False, interim: bool = False) -> None:
        """At the acceptor: send the answer's head, perhaps with all of its body, and the end."""
        if self.is_finished:
            return
        if len(head) > MAX_HEAD:
            raise ValueError(f"a head of {len(head)} bytes is larger than {MAX_HEAD}")
        if interim:
            self._advance(Event.INTERIM)
            self._connection.send_interim(self, head)
            return
        self._advance(Event.ANSWER_END if end else Event.ANSWER)
        self.pending_head = head
        self._queue(body, end)

    def send(self, data: bytes, end: bool = False) -> None:
        """Queue bytes, of any number; with `end` they are the last."""
        if self.is_finished:
            return
        self._advance(Event.DATA_END if end else Event.DATA)
        self._queue(data, end)

    def reset(self, wire_code: int, refused: bool = False) -> None:
        """End both halves at once. `refused`: nothing of this push was sent to the target, another connector may
        have it."""
        if not self.is_finished or self.unconsumed:
            self._connection.reset_stream(self, wire_code, refused=refused)

    def consumed(self, n: int) -> None:
        """The reader is done with `n` of the bytes handed over: they no longer count, and the peer may send on."""
        if n > self.unconsumed:
            n = self.unconsumed
        if n:
            self.unconsumed -= n
            self._connection.on_consumed(self, n)

    # What the connection and the outbox call.

    def open(self, head: bytes, body: bytes, end: bool) -> None:
        """At the opener: queue the first frame."""
        self.pending_head = head
        if end:
            self._sending = _ENDED
        self._queue(body, end)

    def receive(self, event: Event, n: int) -> bool:
        """Advance the receiving half by an event with `n` bytes of body; False when the peer may not do that now."""
        following = _NEXT[self._receiving][event]
        if following is None:
            return False
        self._receiving = following
        if n:
            window = self.receive_window
            if window is None and following is _ENDED:  # nearly every push and answer: no more of it will need credit
                if n > self._connection.hello.stream_credit:
                    return False
                self.unconsumed = n
                return True
            if window is None:
                window = self.receive_window = self._connection.new_receive_window()
            if not window.on_received(n):
                return False
            self.unconsumed += n
        return True

    @property
    def has_output(self) -> bool:
        """Whether a frame could be taken, credit permitting."""
        return self.pending_head is not None or self.buffered > 0 or self._end_queued

    @property
    def is_done(self) -> bool:
        """Whether both halves are over and all of it was sent."""
        return (
            self._receiving is _ENDED and self._sending is _ENDED
            and not self._end_queued and not self.buffered and self.pending_head is None
        )  # fmt: skip

    @property
    def is_receiving(self) -> bool:
        """Whether the peer has not ended its half."""
        return self._receiving is not _ENDED

    def cut(self, limit: int, parts: list[bytes | memoryview]) -> int:
        """Move up to `limit` queued bytes to `parts`; their number."""
        chunks = self._chunks
        if len(chunks) == 1 and not self._offset and self.buffered <= limit:  # nearly every push
            parts.append(chunks.popleft())
            taken = self.buffered
            self.buffered = 0
            self.sent_bytes += taken
            return taken
        taken = 0
        while chunks and taken < limit:
            chunk = chunks[0]
            size = len(chunk) - self._offset
            if size <= limit - taken:
                parts.append(memoryview(chunk)[self._offset :] if self._offset else chunk)
                chunks.popleft()
                self._offset = 0
                taken += size
            else:
                stop = self._offset + limit - taken
                parts.append(memoryview(chunk)[self._offset : stop])
                self._offset = stop
                taken = limit
        self.buffered -= taken
        self.sent_bytes += taken
        return taken

    def take_end(self) -> bool:
        """Whether the frame that is being made carries the end; asked once."""
        if self._end_queued and not self.buffered:
            self._end_queued = False
            return True
        return False

    def evict(self, wire_code: int) -> None:
        """Have this stream ended against both sides' will: the process needs its memory."""
        self._connection.evict(self, wire_code)

    def drop(self) -> int:
        """Forget everything: the stream is over. Returns the number of bytes that no longer need memory."""
        held = self.held_bytes
        self.is_finished = True
        self._chunks.clear()
        self._end_queued = False
        self.pending_head = None
        self.buffered = self.unconsumed = self.held_head = 0
        self.handler = NO_HANDLER
        return held

    def _advance(self, event: Event) -> None:
        following = _NEXT[self._sending][event]
        if following is None:
            raise RuntimeError(f"{event.name} on a stream whose sending half is {self._sending.name}")
        self._sending = following

    def _queue(self, data: bytes, end: bool) -> None:
        size = len(data)
        if size:
            self._chunks.append(data)
            self.buffered += size
        if end:
            self._end_queued = True
        self._connection.on_queued(self, size)


class _NoHandler:
    """In place of a handler before there is one; drops everything."""

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None: ...
    def on_data(self, data: bytes, end: bool) -> None: ...
    def on_reset(self, wire_code: int, refused: bool) -> None: ...
    def on_writable(self) -> None: ...


NO_HANDLER: Final[StreamHandler] = _NoHandler()
