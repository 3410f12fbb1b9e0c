"""Binds an address and accepts by itself, on asyncio and uvloop alike: whoever takes a socket judges before TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from shared.listeners import Inherited, open_sockets
from shared.logs import get_logger, log_limited
from shared.tcp.head import Ends

AT_ONCE: Final = 16
"""Connections accepted in one turn of the loop; the rest can wait for the next one, or for another process."""

_PAUSE: Final = 0.5
"""Seconds without accepting after the system had no descriptor or memory for a connection."""

_log = get_logger("relay.ports")

Take = Callable[[socket.socket, Ends], None]
"""Gets a socket that does not block, and its two ends; it owns the socket from then on."""


class Acceptor:
    """One address, on which `take` gets what comes."""

    __slots__ = ("_at_once", "_is_accepting", "_loop", "_sockets", "_take")

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._loop = loop
        self._take = take
        self._sockets: list[socket.socket] = []
        self._is_accepting = False

    async def listen(self, host: str | None, port: int) -> None:
        """Bind and accept; `host` None means all interfaces, `port` 0 any. Raises OSError when that cannot be had."""
        await self.bind(host, port)
        self.start()

    async def bind(self, host: str | None, port: int, inherited: Inherited | None = None, name: str = "") -> None:
        """Have the sockets only, inherited or bound: nobody is refused any more, and nobody is served yet. OSError."""
        self._sockets = await open_sockets(self._loop, host, port, inherited, name)

    def start(self) -> None:
        """Accept from now on."""
        self._is_accepting = True
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def pause(self) -> None:
        """Accept no more, until `start`; the port stays open, and whoever else holds it may accept."""
        self._is_accepting = False
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What listens. Not the caller's own."""
        return tuple(self._sockets)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound: (host, port), the port never 0."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    def stop(self) -> None:
        """Close the port. What was accepted stays."""
        self.pause()
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._at_once):
            if not self._is_accepting:
                return
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
        if self._is_accepting and listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


def _ends(sock: socket.socket, address: tuple[str, int]) -> Ends:
    here = sock.getsockname()
    return Ends(_plain(address[0]), address[1], _plain(here[0]), here[1])


def _plain(host: str) -> str:
    """Without the zone; and of IPv4 as such where it came by a socket for both (RFC 4291 §2.5.5.2)."""
    host = host.partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host
