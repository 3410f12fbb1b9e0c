"""A plain TCP connection as an edge. TCP half-closes, so both directions end exactly as they did."""

from __future__ import annotations

import asyncio
from typing import cast

from shared.tcp.edge import HIGH_WATER, EdgeHandler, Reading, keep_alive
from shared.tunnel.endings import cut_off


class PlainEdge(asyncio.Protocol):
    """An asyncio protocol that satisfies `Edge`."""

    __slots__ = ("_handler", "_has_ended", "_has_eof", "_is_lost", "_reading", "_transport", "is_full")

    def __init__(self, handler: EdgeHandler) -> None:
        self.is_full = False
        self._handler = handler
        self._has_ended = False
        self._has_eof = False
        self._is_lost = False
        self._transport = cast(asyncio.Transport, None)  # both are there from connection_made on
        self._reading = cast(Reading, None)

    # Edge

    def write(self, data: bytes) -> None:
        """See Edge."""
        self._transport.write(data)

    def end(self) -> None:
        """See Edge."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._transport.is_closing():
            return
        if self._has_eof:
            self._transport.close()
        else:
            self._transport.write_eof()

    def reset(self) -> None:
        """See Edge."""
        if not self._is_lost:
            cut_off(self._transport)

    def pause_reading(self) -> None:
        """See Edge."""
        if not self._has_eof:
            self._reading.pause()

    def resume_reading(self) -> None:
        """See Edge."""
        self._reading.resume()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reading = Reading(self._transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        keep_alive(transport.get_extra_info("socket"))
        self._handler.on_made(self)

    def data_received(self, data: bytes) -> None:
        self._handler.on_bytes(data)

    def eof_received(self) -> bool:
        self._has_eof = True
        self._handler.on_eof()
        return not self._has_ended  # True: the other direction may still flow

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._handler.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._handler.on_lost(exc if exc is not None or (self._has_eof and self._has_ended) else _cut())

    def __repr__(self) -> str:
        return f"<PlainEdge eof={self._has_eof} ended={self._has_ended} full={self.is_full}>"


def _cut() -> Exception:
    return ConnectionAbortedError("the connection ended in the middle")
