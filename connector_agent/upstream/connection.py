"""One connection to a target: one push at a time, its timer, and back-pressure both ways.

An asyncio.Protocol with no policy in it: it writes what the delivery gives it, reads answers strictly, and says what
happened. Whether it may be used again is decided here, since here it is known what was unusual.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol

from connector_agent.upstream.answer import AnswerReader, AnswerSink
from shared.errors import LocalFault
from shared.http.headers import prepare_answer_headers
from shared.http.push_head import encode_answer
from shared.timers import LazyTimer
from shared.tunnel.endings import ended_well

if TYPE_CHECKING:
    from connector_agent.upstream.pool import UpstreamPool
    from shared.http.responses import ResponseHead

HIGH_WATER: Final = 256 * 1024
"""Bytes held for a target that reads slowly, before the sender is made to wait."""

LOW_WATER: Final = 64 * 1024
"""Bytes at which the sender may go on."""

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Exchange(AnswerSink, Protocol):
    """What a connection calls on behalf of the push that holds it; besides the answer, one of the two endings."""

    def on_lost(self, detail: str, *, is_malformed: bool) -> None:
        """The connection is gone before the answer ended, or had to be ended because the answer was malformed."""

    def on_timeout(self) -> None:
        """The deadline given to `set_deadline` has passed. The connection is still there."""

    def on_paused(self) -> None:
        """The target reads more slowly than the sender sends."""

    def on_resumed(self) -> None:
        """What was written has left for the target."""


class UpstreamConnection(asyncio.Protocol):
    """`is_reused` is True from the second push on; `idle_since` and `idle_limit` are the loop's seconds."""

    __slots__ = (
        "_encoded",
        "_encoded_head",
        "_encoded_length",
        "_eof",
        "_exchange",
        "_pool",
        "_timer",
        "_transport",
        "idle_limit",
        "idle_since",
        "is_closed",
        "is_paused",
        "is_reading",
        "is_reused",
        "reader",
    )

    def __init__(self, pool: UpstreamPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._timer = LazyTimer(loop, self._on_timer)
        self._eof = False
        self._encoded = b""
        self._encoded_head: ResponseHead | None = None
        self._encoded_length: int | None = None
        self.reader = AnswerReader()
        self.idle_since = 0.0
        self.idle_limit = 0.0
        self.is_closed = False
        self.is_paused = False
        self.is_reading = True
        self.is_reused = False

    # What the delivery calls.

    def begin(self, exchange: Exchange, method: bytes, request: bytes, body: bytes) -> None:
        """Write a request's head, and the first or all of its body, for `exchange`."""
        self._exchange = exchange
        self.reader.begin(method, exchange)
        transport = self._transport
        if transport is None:
            return
        if len(body) <= LOW_WATER:
            transport.write(request + body)
        else:
            transport.write(request)
            transport.write(body)

    def encoded_head(self, head: ResponseHead, length: int | None) -> bytes:
        """The answer's head as it crosses the tunnel; the last one's bytes, if the target said the same again."""
        if head is not self._encoded_head or length != self._encoded_length:
            self._encoded = encode_answer(head.status, length, prepare_answer_headers(head.headers))
            self._encoded_head, self._encoded_length = head, length
        return self._encoded

    def write(self, data: bytes) -> None:
        """Write more of the request's body."""
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    def set_deadline(self, when: float) -> None:
        """Call `on_timeout` at `when` of the loop's time; 0.0 means never."""
        if when:
            self._timer.set(when)
        else:
            self._timer.cancel()

    def pause_reading(self) -> None:
        """Take no more of the answer for now."""
        if self.is_reading and self._transport is not None and not self.is_closed:
            self.is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take the rest of the answer."""
        if not self.is_reading and self._transport is not None:
            self.is_reading = True
            if not self.is_closed:
                self._transport.resume_reading()

    def release(self, *, keep: bool) -> None:
        """The push is over. Keep the connection for the next one if `keep`, and if nothing unusual was seen on it."""
        self._exchange = None
        self._timer.cancel()
        if keep and not (self.is_closed or self.is_paused or self._eof or self.reader.has_excess):
            self.is_reused = True
            if not self.is_reading:
                self.resume_reading()
            self._pool.put_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        """End at once. On plain TCP the target sees a reset, so that it cannot take half a push for a whole one."""
        self._detach()
        transport = self._transport
        if transport is None:
            return
        if transport.get_extra_info("sslcontext") is None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                except OSError:
                    pass  # closed already
        transport.abort()

    def hand_over(self) -> asyncio.Transport:
        """After a 101: the transport, for another protocol. The connection still counts, until `let_go`."""
        if self._transport is None:
            raise RuntimeError("no transport to hand over")  # bytes of the 101 have come from one just now
        self._timer.cancel()
        return self._transport

    def let_go(self) -> None:
        """What was handed over is ended by whoever has it: count no more."""
        self._detach()

    def drop(self, detail: str) -> None:
        """End at once, and tell the push that holds it."""
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.on_lost(detail, is_malformed=False)

    def close(self) -> None:
        """End an idle connection in good order."""
        self._detach()
        if self._transport is not None:
            self._transport.close()

    def _detach(self) -> None:
        """Out of the pool's count, without an exchange, without a timer."""
        self._exchange = None
        self._timer.close()
        self.reader.stop()
        if not self.is_closed:
            self.is_closed = True
            self._pool.forget(self)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once."""
        # uvloop's transports are no asyncio.Transport, but have all of its methods.
        self._transport = transport  # type: ignore[assignment]
        if self.is_closed:
            transport.abort()  # type: ignore[attr-defined]  # the pool was closed while we connected
            return
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer; bytes that nobody asked for end the connection."""
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        try:
            self.reader.feed(data)
        except LocalFault as error:
            self.abort()
            exchange.on_lost(error.detail, is_malformed=True)

    def eof_received(self) -> bool:
        """The target ended its side in good order (over TLS: with a close_notify)."""
        self._eof = True
        exchange = self._exchange
        if exchange is not None and not (ended_well(self._transport) and self.reader.feed_eof()):
            self.abort()
            exchange.on_lost("the target closed the connection", is_malformed=False)
        elif not self.is_closed and self._exchange is None:
            self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end. Without an `eof_received` before it, it was no good one."""
        exchange = self._exchange
        self._detach()
        self._transport = None
        if exchange is not None:
            exchange.on_lost(f"the connection was lost: {exc or 'no goodbye'}", is_malformed=False)

    def pause_writing(self) -> None:
        """What was written is more than HIGH_WATER."""
        self.is_paused = True
        if self._exchange is not None:
            self._exchange.on_paused()

    def resume_writing(self) -> None:
        """What was written is down to LOW_WATER."""
        self.is_paused = False
        if self._exchange is not None:
            self._exchange.on_resumed()

    def _on_timer(self) -> None:
        if self._exchange is not None:
            self._exchange.on_timeout()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "busy" if self._exchange is not None else "idle"
        return f"<UpstreamConnection {state}{' paused' if self.is_paused else ''} reader={self.reader!r}>"
