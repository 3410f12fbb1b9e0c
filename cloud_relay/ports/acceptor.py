"""Binds an address and accepts by itself, on asyncio and uvloop alike: whoever takes a socket judges before TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from shared.logs import get_logger, log_limited
from shared.tcp.head import Ends

BACKLOG: Final = 4096
"""Connections that the kernel holds until we accept them: 4,000 pushes may come within one second."""

_AT_ONCE: Final = 64
"""Connections accepted in one turn of the loop; the rest can wait for the next one."""

_PAUSE: Final = 0.5
"""Seconds without accepting after the system had no descriptor or memory for a connection."""

_log = get_logger("relay.ports")

Take = Callable[[socket.socket, Ends], None]
"""Gets a socket that does not block, and its two ends; it owns the socket from then on."""


class Acceptor:
    """One address, on which `take` gets what comes."""

    __slots__ = ("_loop", "_sockets", "_take")

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take) -> None:
        self._loop = loop
        self._take = take
        self._sockets: list[socket.socket] = []

    async def listen(self, host: str | None, port: int) -> None:
        """Bind and accept; `host` None means all interfaces, `port` 0 any. Raises OSError when that cannot be had."""
        await self.bind(host, port)
        self.start()

    async def bind(self, host: str | None, port: int) -> None:
        """Bind only: nobody is refused any more, and nobody is served yet. Raises OSError."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(socket.socket(family, kind, protocol), address))
        except OSError:
            self.stop()
            raise

    def start(self) -> None:
        """Accept from now on."""
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound: (host, port), the port never 0."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    def stop(self) -> None:
        """Close the port. What was accepted stays."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            self._loop.remove_reader(sock)
            sock.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no descriptor or no memory is left: what is here goes first
                log_limited(_log, "error", "accept", "no connection can be accepted", cause=str(error))
                self._loop.remove_reader(listening)
                self._loop.call_later(_PAUSE, self._accept_again, listening)
                return
            sock.settimeout(0.0)
            self._take(sock, _ends(sock, address))

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


def _ends(sock: socket.socket, address: tuple[str, int]) -> Ends:
    here = sock.getsockname()
    return Ends(address[0].partition("%")[0], address[1], here[0].partition("%")[0], here[1])


def _bound(sock: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        sock.settimeout(0.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
