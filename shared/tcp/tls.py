"""A TLS connection as an edge, TLS ended here.

TLS has no half-close that peers agree on: many take close_notify for the end of both directions, and close. So ours is
said only once the peer has said its own, or both directions are done; the peer's ends its direction and no more. An
end of TCP without close_notify is no end but a cut (RFC 8446, section 6.1): whoever could cut the connection could
truncate it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

from shared.tcp.edge import EdgeHandler, Reading, keep_alive
from shared.tunnel.endings import cut_off
from shared.tunnel.tls import ReadBuffers, TlsStream


class TlsEdge(TlsStream):
    """A TLS server's end that satisfies `Edge`. `on_made` comes after the handshake, which its owner bounds in time."""

    __slots__ = ("_handler", "_has_ended", "_has_eof", "_is_lost", "_reading", "is_full")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, buffers: ReadBuffers, handler: EdgeHandler
    ) -> None:
        super().__init__(loop, context, buffers, server_side=True)
        self.is_full = False
        self._handler = handler
        self._has_ended = False
        self._has_eof = False
        self._is_lost = False
        self._reading = cast(Reading, None)  # there from connection_made on

    # Edge

    def write(self, data: bytes) -> None:
        """See Edge."""
        if data and not self._is_finished:
            self.write_plain(data)

    def end(self) -> None:
        """See Edge. The peer hears of it once its own direction has ended."""
        if not self._has_ended:
            self._has_ended = True
            if self._has_eof:
                self.close_stream()

    def reset(self) -> None:
        """See Edge."""
        self._is_finished = True
        if not self._is_lost:
            cut_off(self._raw)

    def pause_reading(self) -> None:
        """See Edge."""
        if not self._has_eof:
            self._reading.pause()

    def resume_reading(self) -> None:
        """See Edge."""
        self._reading.resume()

    # TlsStream's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reading = Reading(cast(asyncio.Transport, transport))
        super().connection_made(transport)
        keep_alive(transport.get_extra_info("socket"))

    def buffer_updated(self, nbytes: int) -> None:
        if not self._has_eof:  # what follows a close_notify is ignored (RFC 8446, section 6.1)
            super().buffer_updated(nbytes)

    def tls_established(self) -> None:
        self._handler.on_made(self)

    def plain_received(self, view: memoryview, size: int) -> None:
        self._handler.on_bytes(bytes(view[:size]))

    def plain_ended(self) -> bool:
        if not self._has_eof:
            self._has_eof = True
            self._handler.on_eof()
        return not self._has_ended

    def pause_writing(self) -> None:
        self.is_full = True

    def writable(self) -> None:
        self.is_full = False
        self._handler.on_drained()

    def eof_received(self) -> bool:
        return self._has_eof and not self._is_finished

    def stream_lost(self, error: BaseException | None) -> None:
        self._is_lost = True
        if isinstance(error, Exception):
            self._handler.on_lost(error)
        else:
            self._handler.on_lost(None if self._has_eof and self._has_ended else ConnectionAbortedError(_CUT))

    def __repr__(self) -> str:
        return f"<TlsEdge {self._peer} eof={self._has_eof} ended={self._has_ended} full={self.is_full}>"


_CUT: Final = "the connection ended without close_notify"
