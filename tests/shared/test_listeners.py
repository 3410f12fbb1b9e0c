"""Sockets that this process did not bind: whose they are, where they listen, and what is bound beside them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys

import pytest

from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, adopt, listen_remedy, open_sockets


def listening(host: str = "127.0.0.1", port: int = 0, *, dual: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
    sock.bind((host, port))
    sock.listen(1)
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def opened(host: str | None, port: int, inherited: Inherited, name: str = "") -> list[socket.socket]:
    return await open_sockets(asyncio.get_running_loop(), host, port, inherited, name)


async def test_what_listens_at_the_address_is_taken_and_nothing_is_bound() -> None:
    given = listening()
    inherited = Inherited([Listening("ingress", given)])
    assert await opened("127.0.0.1", port_of(given), inherited) == [given]
    assert len(inherited) == 0
    with pytest.raises(OSError, match="in use"):  # it is taken once
        await opened("127.0.0.1", port_of(given), inherited)
    given.close()


async def test_another_address_is_bound_and_what_nobody_wanted_is_named() -> None:
    given = listening()
    inherited = Inherited([Listening("stray", given)])
    bound = await opened("127.0.0.1", 0, inherited)
    assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1"]
    assert inherited.unclaimed() == [f"127.0.0.1:{port_of(given)} (stray)"]
    assert repr(inherited) == f"<Inherited 127.0.0.1:{port_of(given)} (stray)>"
    inherited.close()
    assert given.fileno() == -1
    bound[0].close()


async def test_a_port_of_0_is_found_by_its_name() -> None:
    one, other = listening(), listening()
    inherited = Inherited([Listening("a", one), Listening("b", other)])
    assert await opened("127.0.0.1", 0, inherited, "b") == [other]
    assert await opened("127.0.0.1", 0, inherited, "a") == [one]
    for sock in (one, other):
        sock.close()


async def test_a_socket_for_both_families_stands_for_both() -> None:
    given = listening("::", dual=True)
    assert await opened(None, port_of(given), Inherited([Listening("", given)])) == [given]
    given.close()


async def test_of_all_interfaces_what_is_not_given_is_bound() -> None:
    given = listening("::")
    found = await opened(None, port_of(given), Inherited([Listening("", given)]))
    assert given in found
    assert {sock.family for sock in found} == {socket.AF_INET, socket.AF_INET6}
    for sock in found:
        sock.close()


async def test_nothing_stays_open_when_one_address_cannot_be_had() -> None:
    given, taken = listening("::1"), listening()
    inherited = Inherited([Listening("", given)])
    loop = asyncio.get_running_loop()
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 0, "", given.getsockname()),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", taken.getsockname()),
    ]

    class Resolver:
        async def getaddrinfo(self, *_: object, **__: object) -> object:
            return found

    with pytest.raises(OSError, match="in use"):
        await open_sockets(Resolver(), "both", 1, inherited)  # type: ignore[arg-type]  # all that is asked of a loop
    assert given.fileno() == -1
    assert not loop.is_closed()
    taken.close()


def test_only_listening_tcp_sockets_are_adopted() -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unbound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for sock, cause in ((datagrams, "no TCP socket"), (unbound, "does not listen")):
        number = os.dup(sock.fileno())
        with pytest.raises(CommandError, match=cause) as caught:
            adopt(number, "web")
        assert caught.value.exit_code is ExitCode.CONFIG
        assert f"{number} (web)" in caught.value.message
        sock.close()
    read, write = os.pipe()
    with pytest.raises(CommandError, match="Socket operation on non-socket"):
        adopt(read)
    os.close(read)
    os.close(write)


_ACTIVATED = """
import os, sys
from shared.listeners import Inherited
for number, given in enumerate(sys.argv[2:], 3):
    os.dup2(os.dup(int(given)), number)
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "mine" else "1"
found = Inherited.from_service_manager(os.environ)
print(found.unclaimed(), [name for name in os.environ if name.startswith("LISTEN_")])
"""


@pytest.mark.parametrize("whose", ["mine", "another's"])
def test_the_service_managers_variables(whose: str) -> None:
    one, other = listening(), listening()
    try:
        environ = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:tunnel"}
        numbers = [os.dup(sock.fileno()) for sock in (one, other)]
        answer = subprocess.run(
            [sys.executable, "-c", _ACTIVATED, whose, *map(str, numbers)],
            env=environ, pass_fds=numbers, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        names = [f"127.0.0.1:{port_of(one)} (web)", f"127.0.0.1:{port_of(other)} (tunnel)"] if whose == "mine" else []
        assert answer.stdout == f"{names} []\n", "and no child of it takes them for its own"
    finally:
        for number in numbers:
            os.close(number)
        one.close()
        other.close()


@pytest.mark.parametrize("count", ["", "0", "-1", "two", "99999"])
def test_variables_that_say_nothing(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    assert len(Inherited.from_service_manager(environ)) == 0
    assert environ == {}


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EADDRINUSE, "already"), (errno.EADDRNOTAVAIL, "No interface"), (errno.EACCES, "CAP_NET_BIND_SERVICE")],
)
def test_what_to_do_where_nothing_can_be_bound(number, remedy):
    assert remedy in listen_remedy(OSError(number, "no"))
    assert listen_remedy(OSError("no such name")) == "Choose another address."
