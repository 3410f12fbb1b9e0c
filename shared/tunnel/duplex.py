"""A connection of an edge, tied to a stream of the tunnel: bytes both ways, until both directions have ended.

Theory of operation. Each direction ends for itself, and an end is only passed on where it was a good one:

    the peer's FIN or close_notify ──▶ END        END ──▶ FIN: the other direction goes on
    the peer's RST, or a lost TLS session ──▶ RESET        RESET ──▶ RST, and no close_notify

so that what was cut off never looks complete. TLS cannot half-close: its transports close both ways with the first
close_notify. Under TLS an END out of the tunnel is therefore held back until the peer ends its own direction, or has
said nothing for END_PATIENCE; what the peer says after that goodbye is lost, so the stream is then reset. And a peer
that says goodbye first will read no more: the tunnel's end has LINGER to come, and bytes in its place are a RESET.

A good end is one when the last bytes have left: the transport is gone without an error, and the stream has sent all.
So where the connection's direction is the last to end, its END is held back until the transport is gone.

Back-pressure is the stream's credit: it comes back when the transport has room. A direction that moves keeps the other
one alive; when neither moved a byte for the idle time-out, or one could not be written, the connection is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from shared.errors import FAULTS
from shared.timers import LazyTimer
from shared.tunnel.endings import cut_off, ended_well

if TYPE_CHECKING:
    from shared.protocol import StreamEnd

END_PATIENCE: Final = 0.25
"""Seconds of silence after which an end is taken to be the end of both directions, where one cannot end alone. A long
round trip; and no more, since under TLS every WebSocket whose server closes first waits for it."""

LINGER: Final = 5.0
"""Seconds that a closed connection has to take what was written last, and a far end to see that it was closed."""


class DuplexOwner(Protocol):
    """Who counts and logs the connection. Both calls come once, in this order."""

    def on_over(self, code: str) -> None:
        """Nothing moves any more. `code` says why the connection was cut off, "" where both directions ended well."""

    def on_gone(self, error: Exception | None) -> None:
        """The transport is gone."""

    def code_of(self, wire_code: int, refused: bool) -> str:
        """What a RESET from the tunnel means."""


class EdgeRules(NamedTuple):
    """What differs from edge to edge. `idle_timeout` is in seconds; `lost` and `idle` are codes of the catalogue."""

    idle_timeout: float
    lost: str
    idle: str


class Duplex(asyncio.Protocol):
    """The connection's protocol and the stream's handler in one. `edge_ended`, `tunnel_ended`: which directions did.

    `bytes_in` came from the connection, `bytes_out` went to it.
    """

    __slots__ = (
        "_can_half_close", "_gone_by", "_has_lost", "_is_blocked", "_is_closing", "_is_finishing", "_is_gone",
        "_is_leaving", "_is_paused", "_now", "_owed", "_owes_end", "_owner", "_progress", "_rules", "_stream",
        "_timer", "_transport", "bytes_in", "bytes_out", "edge_ended", "is_over", "tunnel_ended",
    )  # fmt: skip

    def __init__(
        self,
        owner: DuplexOwner,
        transport: asyncio.Transport,
        stream: StreamEnd,
        rules: EdgeRules,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._transport = transport
        self._stream = stream
        self._rules = rules
        self._now = now
        self._can_half_close = transport.can_write_eof()
        self._timer = LazyTimer(loop, self._on_timer)
        self._progress = now()
        self._owed = 0
        self._gone_by: Exception | None = None
        self._has_lost = self._is_blocked = self._is_closing = self._is_finishing = self._is_gone = False
        self._is_paused = self._is_leaving = self._owes_end = False
        self.bytes_in = self.bytes_out = 0
        self.edge_ended = self.tunnel_ended = self.is_over = False

    def __repr__(self) -> str:
        return (
            f"<Duplex{' over' if self.is_over else ''} in={self.bytes_in}{' ended' if self.edge_ended else ''} "
            f"out={self.bytes_out}{' ended' if self.tunnel_ended else ''}>"
        )

    def start(self, early: bytes, first: bytes, end: bool, *, is_blocked: bool = False) -> None:
        """Begin: `early` is what the connection said already, `first` and `end` what the stream did.

        `is_blocked`: the transport has more to write than it likes, and will call `resume_writing`.
        """
        self._is_blocked = is_blocked
        self._timer.set(self._progress + self._rules.idle_timeout)
        if early:
            self.data_received(early)
        if first or end:
            self.on_data(first, end)

    def abort(self, code: str) -> None:
        """Cut both directions off, for this reason of ours."""
        if not self.is_over:
            self._stream.reset(FAULTS[code].wire)
            self._cut(code)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """More from the connection."""
        if self.is_over:
            return
        if self._is_closing:  # after our goodbye: nobody will read it, so the direction must not seem to end well
            self._has_lost = True
            return
        self.bytes_in += len(data)
        self._progress = self._now()
        self._stream.send(data)
        if not self._stream.is_writable and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The connection's direction has ended; whether the other one can go on."""
        if self.is_over:
            return False
        if self.edge_ended:  # some loops say it again after reading was resumed
            return self._can_half_close
        if self._has_lost or not ended_well(self._transport):
            self._lose()
            return False
        self.edge_ended = True
        self._progress = self._now()
        if self.tunnel_ended:
            self._owes_end = True
            self._finish()
            return self._is_finishing and self._can_half_close
        self._stream.send(b"", end=True)
        if not self._can_half_close:
            self._is_closing = True
            self._timer.set(self._progress + LINGER)
        return self._can_half_close

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone. Without a good end before it, what it carried is cut off."""
        self._is_gone = True
        self._gone_by = exc
        if self.is_over:
            self._leave()
        elif self._is_leaving and exc is None:
            if self._owes_end:
                self._stream.send(b"", end=True)
            self._look_whether_sent()
        elif exc is not None or not self.edge_ended or self._is_finishing:
            self._lose()

    def pause_writing(self) -> None:
        """The connection's peer reads more slowly than the tunnel brings."""
        self._is_blocked = True

    def resume_writing(self) -> None:
        """The peer has read: the tunnel may bring more."""
        self._is_blocked = False
        if self.is_over:
            return
        owed, self._owed = self._owed, 0
        self._progress = self._now()
        if owed:
            self._stream.consumed(owed)
        if self._is_finishing and not self._is_leaving:
            self._close()

    # What the stream calls.

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """Never comes: the answer was what made this a stream of bytes."""

    def on_data(self, data: bytes, end: bool) -> None:
        """More from the tunnel, or its end."""
        if self.is_over:
            return
        self._progress = self._now()
        size = len(data)
        if size:
            if self._is_closing or self._is_gone:
                self._lose()  # there is nobody left to read it
                return
            self.bytes_out += size
            self._transport.write(data)
            if self._is_blocked:
                self._owed += size
            else:
                self._stream.consumed(size)
        if end:
            self._end_tunnel()

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """The far end cut its connection off, or the tunnel is lost: so is this connection."""
        if not self.is_over:
            self._cut(self._owner.code_of(wire_code, refused))

    def on_writable(self) -> None:
        """The tunnel has taken enough of what the connection said."""
        self._progress = self._now()
        if self._is_paused:
            self._is_paused = False
            if not (self.is_over or self.edge_ended or self._is_closing or self._transport.is_closing()):
                self._transport.resume_reading()
        if self._is_leaving and self._is_gone and not self.is_over:
            self._look_whether_sent()

    # How it ends.

    def _end_tunnel(self) -> None:
        self.tunnel_ended = True
        if self.edge_ended:
            self._finish()
        elif self._can_half_close:
            if not self._transport.is_closing():
                self._transport.write_eof()
        else:
            self._timer.set(self._progress + END_PATIENCE)

    def _finish(self) -> None:
        """Both directions have ended well; the last bytes may still have to leave."""
        if self._owed:
            self._is_finishing = True
        else:
            self._close()

    def _close(self) -> None:
        self._is_leaving = True
        if self._is_gone:
            self._look_whether_sent()
        else:
            self._transport.close()
            self._timer.set(self._now() + LINGER)

    def _look_whether_sent(self) -> None:
        """The transport is gone in good order."""
        if self._stream.is_sent:
            self._be_over("")
        else:
            self._timer.set(self._progress + self._rules.idle_timeout)

    def _lose(self) -> None:
        self._stream.reset(FAULTS[self._rules.lost].wire)
        self._cut(self._rules.lost)

    def _cut(self, code: str) -> None:
        if not self._is_gone:
            cut_off(self._transport)
        self._be_over(code)

    def _be_over(self, code: str) -> None:
        self.is_over = True
        self._owed = 0
        self._owner.on_over(code)
        if self._is_gone:
            self._leave()

    def _leave(self) -> None:
        self._timer.close()
        self._owner.on_gone(self._gone_by)

    def _on_timer(self) -> None:
        now = self._now()
        if self.is_over:
            cut_off(self._transport)  # what it has not taken by now would be missing: that must not look like an end
        elif self._is_leaving and self._is_gone:
            self._look_for_progress(now)
        elif self._is_leaving or self._is_closing:
            self._lose()  # last bytes that do not leave, no goodbye from the peer, or no end from the tunnel
        elif self.tunnel_ended and not self._can_half_close and not self._is_finishing:
            self._part(now)
        else:
            self._look_for_progress(now)

    def _look_for_progress(self, now: float) -> None:
        due = self._progress + self._rules.idle_timeout
        if now < due:
            self._timer.set(due)
        else:
            self.abort(self._rules.idle)

    def _part(self, now: float) -> None:
        """Under TLS, after the tunnel's end: say goodbye once the peer has been silent for long enough."""
        due = self._progress + END_PATIENCE
        if now < due:
            self._timer.set(due)
            return
        if self._owed:  # it is still reading what came before the end
            self._timer.set(min(now + END_PATIENCE, self._progress + self._rules.idle_timeout))
            if now >= self._progress + self._rules.idle_timeout:
                self.abort(self._rules.idle)
            return
        self._is_closing = True
        self._transport.close()
        self._timer.set(now + LINGER)
