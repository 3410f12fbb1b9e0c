"""Half-close, reset, time and back-pressure of a byte stream across two edges: TCP and TLS, on both event loops.

Two edges stand on sockets, joined by a stream in memory that has a window and is as late as a tunnel.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trustme
import uvloop

from shared.errors import BY_WIRE
from shared.tunnel.duplex import END_PATIENCE, Duplex, EdgeRules
from shared.tunnel.endings import cut_off

MIB = 1 << 20
WINDOW = 128 * 1024


class FakeStream:
    """One end of a stream: `send` reaches the other end's handler in the next turn of the loop."""

    def __init__(self) -> None:
        self.far: FakeStream = self
        self.handler: Any = None
        self.in_flight = 0
        self.is_finished = False
        self.has_ended = False
        self._wants = False

    @property
    def is_writable(self) -> bool:
        self._wants = self.in_flight >= WINDOW
        return not self._wants

    @property
    def is_sent(self) -> bool:
        return True

    def send(self, data: bytes, end: bool = False) -> None:
        if self.is_finished:
            return
        assert not self.has_ended, "sent after the end"
        self.has_ended = end
        self.in_flight += len(data)
        self._later(lambda: self.far.handler.on_data(data, end))

    def consumed(self, n: int) -> None:
        assert n > 0
        far = self.far
        far.in_flight -= n
        assert far.in_flight >= 0, "more consumed than was handed over"
        if far._wants and far.in_flight < WINDOW // 2:
            far._wants = False
            self._later(far.handler.on_writable)

    def reset(self, wire_code: int, refused: bool = False) -> None:
        if not self.is_finished:
            self.is_finished = True
            asyncio.get_running_loop().call_soon(self._reset_far, wire_code, refused)

    def _reset_far(self, wire_code: int, refused: bool) -> None:
        if not self.far.is_finished:
            self.far.is_finished = True
            self.far.handler.on_reset(wire_code, refused)

    def _later(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(lambda: None if self.far.is_finished or self.is_finished else call())


class Edge:
    """A listener of one connection, its Duplex, and the peer that dialled it."""

    def __init__(self, name: str, stream: FakeStream, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None) -> None:
        self.name = name
        self.stream = stream
        self.tls = tls
        self.codes: list[str] = []
        self.gone: list[Exception | None] = []
        self.duplex: Duplex = cast(Duplex, None)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, idle: float) -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[asyncio.Transport] = loop.create_future()

        class Waiting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.set_result(cast(asyncio.Transport, transport))

        server = await loop.create_server(Waiting, "127.0.0.1", 0, ssl=self.tls[0] if self.tls else None)
        port = server.sockets[0].getsockname()[1]
        name = "edge.test" if self.tls else None
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.tls[1] if self.tls else None, server_hostname=name
        )
        transport = await made
        server.close()
        rules = EdgeRules(idle, "sender-gone", "idle-too-long")
        self.duplex = Duplex(self, transport, cast(Any, self.stream), rules, loop, loop.time)
        self.stream.handler = self.duplex
        transport.set_protocol(self.duplex)

    def on_over(self, code: str) -> None:
        self.codes.append(code)

    def on_gone(self, error: Exception | None) -> None:
        assert self.codes, "gone before it was over"
        self.gone.append(error)

    def code_of(self, wire_code: int, refused: bool) -> str:
        return BY_WIRE[wire_code].code

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def cut(self) -> None:
        cut_off(cast(asyncio.Transport, self.writer.transport))

    async def read_all(self) -> bytes:
        return await self.reader.read(-1)

    async def sees_a_cut(self) -> None:
        """No clean end: under TLS a missing close_notify, on TCP a RST."""
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await self._read_to_the_end()

    async def _read_to_the_end(self) -> None:
        while await self.reader.read(65536):
            pass


Main = Callable[[Edge, Edge], Awaitable[None]]


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("edge.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class Rig:
    """Runs a scenario between two edges, and looks that both are over, once, and gone."""

    def __init__(self, factory: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext], kinds: str) -> None:
        self.factory = factory
        self.contexts = contexts
        self.kinds = kinds

    def run(self, main: Main, *, idle: float = 10.0, codes: tuple[str, str] = ("", "")) -> None:
        async def whole() -> None:
            near, far = FakeStream(), FakeStream()
            near.far, far.far = far, near
            a = Edge("a", near, self.contexts if self.kinds[0] == "t" else None)
            b = Edge("b", far, self.contexts if self.kinds[1] == "t" else None)
            await a.open(idle)
            await b.open(idle)
            a.duplex.start(b"", b"", end=False)
            b.duplex.start(b"", b"", end=False)
            async with asyncio.timeout(20):
                await main(a, b)
                a.writer.close()
                b.writer.close()
                while not (a.gone and b.gone):
                    await asyncio.sleep(0.01)
            assert (a.codes, b.codes) == ([codes[0]], [codes[1]])
            assert len(a.gone) == len(b.gone) == 1
            if codes == ("", ""):
                assert near.in_flight == far.in_flight == 0, "credit was kept"

        with asyncio.Runner(loop_factory=self.factory) as runner:
            runner.run(whole())


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request: pytest.FixtureRequest) -> Any:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(params=["pp", "tt", "tp", "pt"], ids=["tcp-tcp", "tls-tls", "tls-tcp", "tcp-tls"])
def rig(request: pytest.FixtureRequest, factory: Any, contexts: Any) -> Rig:
    return Rig(factory, contexts, request.param)


def test_bytes_cross_both_ways_at_once_and_end(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        data = bytes(range(256)) * 4096
        await asyncio.gather(a.send(data), b.send(data[::-1]))
        assert await b.reader.readexactly(MIB) == data
        assert await a.reader.readexactly(MIB) == data[::-1]
        a.writer.close()
        assert await b.read_all() == b""
        b.writer.close()
        assert (a.duplex.bytes_in, a.duplex.bytes_out) == (b.duplex.bytes_out, b.duplex.bytes_in) == (MIB, MIB)

    rig.run(main)


def test_what_is_sent_before_the_end_arrives_before_it(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        b.writer.write(b"x" * MIB)
        b.writer.close()
        assert await a.read_all() == b"x" * MIB

    rig.run(main)


@pytest.mark.parametrize("rig", ["pp"], indirect=True)
def test_each_direction_ends_for_itself(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        await a.send(b"question")
        a.writer.write_eof()
        assert await b.read_all() == b"question"
        await asyncio.sleep(2 * END_PATIENCE)
        await b.send(b"answer")
        b.writer.write_eof()
        assert await a.read_all() == b"answer"

    rig.run(main)


@pytest.mark.parametrize("rig", ["tp"], indirect=True)
def test_under_tls_an_end_waits_for_the_other_direction(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        b.writer.write_eof()
        for _ in range(6):
            await a.send(b"more")
            await asyncio.sleep(END_PATIENCE / 2)
        assert not a.reader.at_eof()
        assert await a.read_all() == b""
        assert await b.read_all() == b"more" * 6

    rig.run(main)


def test_a_cut_is_a_cut_at_the_other_side(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        await a.send(b"half of it")
        await b.reader.readexactly(10)
        a.cut()
        await b.sees_a_cut()

    rig.run(main, codes=("sender-gone", "sender-gone"))


@pytest.mark.parametrize("rig", ["tp", "tt"], indirect=True)
def test_under_tls_a_bare_fin_is_a_cut(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        await a.send(b"half of it")
        await b.reader.readexactly(10)
        sock = socket.socket(fileno=_dup(a.writer.get_extra_info("socket")))
        sock.shutdown(socket.SHUT_WR)
        sock.close()
        await b.sees_a_cut()

    rig.run(main, codes=("sender-gone", "sender-gone"))


def _dup(sock: Any) -> int:
    return socket.fromfd(sock.fileno(), sock.family, sock.type).detach()


def test_nothing_moves_for_too_long(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await asyncio.sleep(0.3)
            await b.send(b"alive")
        await asyncio.gather(a.sees_a_cut(), b.sees_a_cut())
        assert asyncio.get_running_loop().time() - began > 1.3

    rig.run(main, idle=0.5, codes=("idle-too-long", "idle-too-long"))


def test_its_owner_cuts_it_off(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        await a.send(b"x")
        await b.reader.readexactly(1)
        b.duplex.abort("starting")
        b.duplex.abort("starting")
        await asyncio.gather(a.sees_a_cut(), b.sees_a_cut())

    rig.run(main, codes=("starting", "starting"))


def test_a_reader_that_stalls_holds_its_sender_back(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        size = 16 * MIB
        sock = b.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        cast(Any, b.writer.transport).pause_reading()
        sending = asyncio.ensure_future(a.send(b"x" * size))  # noqa: TID251
        taken = -1
        while taken != a.duplex.bytes_in:
            taken = a.duplex.bytes_in
            await asyncio.sleep(0.2)
        assert 0 < taken < 12 * MIB
        await b.send(b"the other way is open")
        assert await a.reader.readexactly(21) == b"the other way is open"
        cast(Any, b.writer.transport).resume_reading()
        assert await b.reader.readexactly(size) == b"x" * size
        await sending

    rig.run(main)


@pytest.mark.parametrize("rig", ["tp"], indirect=True)
def test_what_a_target_says_to_a_sender_that_has_left_is_not_lost_in_silence(rig: Rig) -> None:
    async def main(a: Edge, b: Edge) -> None:
        a.writer.close()
        assert await b.reader.read(1) == b""
        await b.send(b"too late")
        while not b.codes:
            await asyncio.sleep(0.01)

    rig.run(main, codes=("sender-gone", "sender-gone"))
