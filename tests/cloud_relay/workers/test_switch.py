"""Which worker gets a connector's connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_relay.workers.switch import Switch
from shared.tcp.head import Ends
from shared.tunnel.websocket import worker_of, worker_protocol

ENDS = Ends("127.0.0.1", 1, "127.0.0.1", 2)


def hello(*protocols: str) -> bytes:
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="relay.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class Port:
    """A switch of worker 1, and what became of connections."""

    def __init__(self) -> None:
        self.here: list[Any] = []
        self.passed: list[Any] = []
        self.gone: set[int] = set()
        self.switch = Switch(1, self, self.pass_on)

    def take(self, *what: Any) -> None:
        self.here.append(what)

    def pass_on(self, worker: int, *what: Any) -> bool:
        if worker in self.gone:
            return False
        self.passed.append((worker, *what))
        return True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("protocols", "goes_to"),
    [((), 1), (("h2",), 1), (("qanat-worker-1",), 1), (("qanat-worker-3",), 3), (("h2", "qanat-worker-0"), 0)],
)
def test_it_goes_where_it_asks_to_go_with_all_of_its_bytes(
    pair: tuple[socket.socket, socket.socket], protocols: tuple[str, ...], goes_to: int
) -> None:
    port = Port()
    sent = hello(*protocols)
    pair[1].sendall(sent)
    port.switch.take(pair[0], ENDS, "relay.example.com")
    if goes_to == 1:
        assert port.here == [(pair[0], ENDS, "relay.example.com")]
    else:
        assert port.passed == [(goes_to, pair[0], ENDS, "relay.example.com")]
    assert pair[0].recv(65536) == sent


def test_who_asks_for_one_that_is_gone_is_taken_here(pair: tuple[socket.socket, socket.socket]) -> None:
    port = Port()
    port.gone.add(3)
    pair[1].sendall(hello("qanat-worker-3"))
    port.switch.take(pair[0], ENDS, None)
    assert len(port.here) == 1
    assert port.switch.passed == 0


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x00"])
def test_what_is_no_hello_is_left_to_whoever_takes_it(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    port = Port()
    if data:
        pair[1].sendall(data)
    else:
        pair[1].close()
    port.switch.take(pair[0], ENDS, None)
    assert len(port.here) == 1


@pytest.mark.parametrize("name", [b"qanat-worker-", b"qanat-worker-x", b"qanat-worker-1000", b"worker-1", b""])
def test_what_names_no_worker(name: bytes) -> None:
    assert worker_of([name]) is None


def test_every_worker_has_a_name() -> None:
    assert [worker_of([worker_protocol(number).encode()]) for number in range(256)] == list(range(256))
