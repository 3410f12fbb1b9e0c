"""One TCP connection at our edge, whose two directions end one by one, and whose reset is a reset.

asyncio's transports alone do not say enough: `abort` sends a FIN, which looks like a good end; TLS ones cannot
half-close, nor tell an end without close_notify from one with. An `Edge` says exactly which of them happened.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Protocol

HIGH_WATER: Final = 64 * 1024
"""Bytes that may wait in our memory for the peer to read before `is_full`: they are counted no more."""

_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds, seconds, times: a peer that vanished without a word is noticed within two minutes."""


class EdgeHandler(Protocol):
    """What an edge calls."""

    def on_made(self, edge: Edge) -> None:
        """Bytes can flow; under TLS the handshake is over. Comes first, at most once."""

    def on_bytes(self, data: bytes) -> None:
        """Bytes came; never empty."""

    def on_eof(self) -> None:
        """The peer has ended its direction in good order. It may still read."""

    def on_drained(self) -> None:
        """There is room again, after `is_full`."""

    def on_lost(self, error: Exception | None) -> None:
        """The last call: the connection is gone. It was in good order only if both directions had ended before and
        `error` is None."""


class Edge(Protocol):
    """One connection."""

    @property
    def is_full(self) -> bool:
        """Whether the peer reads more slowly than we write; `on_drained` will follow."""

    def write(self, data: bytes) -> None:
        """Send bytes, at once or when the peer reads."""

    def end(self) -> None:
        """No more will be written: the peer is told once all is sent. When both directions have ended, it is closed."""

    def reset(self) -> None:
        """End both directions at once, with a TCP RST: nothing may take it for a good end. `on_lost` follows."""

    def pause_reading(self) -> None:
        """Take in no more."""

    def resume_reading(self) -> None:
        """There is room again."""


class Reading:
    """Pauses and resumes what a transport reads; one that is closing must not be asked to."""

    __slots__ = ("_is_paused", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_paused = False

    def pause(self) -> None:
        """Take in no more."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take in more, if it was paused."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()


def keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel notice a peer that vanished, and send small writes at once."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
