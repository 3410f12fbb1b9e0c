"""Listening sockets: bound by this process, or handed to it by whoever started it, matched by address.

    inherited = Inherited.from_service_manager(os.environ)      # systemd's socket activation, sd_listen_fds(3)
    sockets = await open_sockets(loop, host, port, inherited)   # what is not inherited is bound
    inherited.unclaimed()                                       # what nobody wanted, by address

A socket that two processes hold loses no connection when one of them closes it; of two sockets bound with SO_REUSEPORT
the kernel resets what waits in the one that is closed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Iterable, MutableMapping
from typing import Any, Final, NamedTuple

from shared.exits import CommandError, ExitCode

BACKLOG: Final = 4096
"""Connections that the kernel holds until we accept them: 4,000 pushes may come within one second."""

FIRST_FD: Final = 3
"""The first descriptor that systemd passes (SD_LISTEN_FDS_START)."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_IP: Final = (socket.AF_INET, socket.AF_INET6)

_LISTEN_REMEDIES: Final = {
    errno.EADDRINUSE: "Stop what listens there already ('ss -ltnp' shows it), or choose another port.",
    errno.EADDRNOTAVAIL: "No interface of this host has the address: choose one that 'ip address' shows, or none.",
    errno.EACCES: "Ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or choose another port.",
}

Address = tuple[Any, ...]
"""As a socket gives it: of IPv6 (host, port, flow, scope)."""


def listen_remedy(error: OSError) -> str:
    """What to do where an address cannot be listened on."""
    return _LISTEN_REMEDIES.get(error.errno or 0, "Choose another address.")


class Listening(NamedTuple):
    """A listening TCP socket and the name that it was given, for messages and for ports of 0."""

    name: str
    sock: socket.socket

    def __str__(self) -> str:
        host, port = self.sock.getsockname()[:2]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{where} ({self.name})" if self.name else where

    @property
    def is_dual(self) -> bool:
        """Whether it is of IPv6 and takes IPv4 too."""
        sock = self.sock
        return sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


class Inherited:
    """The sockets that this process was given. Each is taken once; `close` lets go of the rest.

    `is_complete`: whoever gave them has bound all there are, and this process binds none by itself.
    """

    def __init__(self, sockets: Iterable[Listening] = (), *, is_complete: bool = False) -> None:
        self._free = list(sockets)
        self._is_complete = is_complete

    def __len__(self) -> int:
        return len(self._free)

    def __repr__(self) -> str:
        return f"<Inherited {', '.join(self.unclaimed()) or 'nothing'}>"

    @classmethod
    def from_service_manager(cls, environ: MutableMapping[str, str]) -> Inherited:
        """What systemd's variables name; they are taken out of `environ`, for they are this process's alone.

        CommandError for a descriptor that is no listening TCP socket.
        """
        pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
        if pid != str(os.getpid()) or _COUNT.fullmatch(count) is None:
            return cls()
        numbers = range(FIRST_FD, FIRST_FD + int(count))
        given = names.split(":") if names else []
        return cls(adopt(number, given[place] if place < len(given) else "") for place, number in enumerate(numbers))

    def take(self, family: int, address: Address, name: str = "") -> Listening | None:
        """The socket that listens at this address; for a port of 0 the one of this name at this host."""
        for one in self._free:
            bound = one.sock.getsockname()
            if one.sock.family != family or bound[0] != address[0]:
                continue
            if bound[1] == address[1] or (address[1] == 0 and name and one.name == name):
                self._free.remove(one)
                return one
        return None

    def check(self, address: Address, name: str = "") -> None:
        """CommandError for an address that was not passed and must not be bound here."""
        if self._is_complete:
            host, port = address[:2]
            raise CommandError(
                ExitCode.CONFIG, f"the socket for {host}:{port} ({name}) was not passed to this worker",
                "Its supervisor binds all ports: restart the relay.", "socket-missing",
            )  # fmt: skip

    def unclaimed(self) -> list[str]:
        """The addresses of those that nobody has taken."""
        return [str(one) for one in self._free]

    def refuse_strays(self) -> None:
        """CommandError for those that nobody has taken: what comes there would wait for ever. They are closed."""
        strays = self.unclaimed()
        self.close()
        if strays:
            raise CommandError(
                ExitCode.CONFIG, f"the config has no listener for what the service manager passed: {', '.join(strays)}",
                "Name these addresses in the config, or take them out of the socket unit: what comes there would wait "
                "for ever.", "stray-socket",
            )  # fmt: skip

    def close(self) -> None:
        """Let go of those that nobody has taken; whoever else holds them goes on with them."""
        free, self._free = self._free, []
        for one in free:
            one.sock.close()


def adopt(number: int, name: str = "") -> Listening:
    """A descriptor that was passed to this process, as a socket. CommandError if it is no listening TCP socket."""
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise _unusable(number, name, error.strerror or str(error)) from error
    cause = ""
    if sock.family not in _IP or sock.type != socket.SOCK_STREAM:
        cause = "it is no TCP socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        cause = "it does not listen (in a socket unit: Accept=no)"
    if cause:
        sock.close()
        raise _unusable(number, name, cause)
    sock.set_inheritable(False)
    sock.settimeout(0.0)
    return Listening(name, sock)


async def open_sockets(
    loop: asyncio.AbstractEventLoop,
    host: str | None,
    port: int,
    inherited: Inherited | None = None,
    name: str = "",
    backlog: int = BACKLOG,
) -> list[socket.socket]:
    """Listening sockets for all addresses of `host` (None: all interfaces): inherited ones, and else bound ones.

    Nobody is refused from then on, and nobody served yet. Raises OSError, and CommandError for what had to be inherited
    and is not; then none is left open.
    """
    found = dict.fromkeys(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    opened: list[socket.socket] = []
    wanted = []
    is_dual = False
    try:
        for family, kind, protocol, _, address in found:
            taken = inherited.take(family, address, name) if inherited is not None else None
            if taken is None:
                wanted.append((family, kind, protocol, address))
            else:
                opened.append(taken.sock)
                is_dual = is_dual or taken.is_dual
                taken.sock.listen(backlog)  # whoever bound it may have thought smaller
        for family, kind, protocol, address in wanted:
            if not (is_dual and family == socket.AF_INET):
                if inherited is not None:
                    inherited.check(address, name)
                opened.append(_bound(socket.socket(family, kind, protocol), address, backlog))
    except (OSError, CommandError):
        for sock in opened:
            sock.close()
        raise
    return opened


def _bound(sock: socket.socket, address: Address, backlog: int) -> socket.socket:
    try:
        sock.settimeout(0.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _unusable(number: int, name: str, cause: str) -> CommandError:
    called = f" ({name})" if name else ""
    return CommandError(
        ExitCode.CONFIG, f"the descriptor {number}{called} that this process was given cannot be used: {cause}",
        "Name only listening TCP sockets in the socket unit.", "bad-inherited-socket",
    )  # fmt: skip
