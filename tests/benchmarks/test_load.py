"""The open-loop generator and the sink, against each other in one loop."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.load.figures import Load
from benchmarks.load.openloop import Spec, generate
from benchmarks.scenarios.workers import together
from benchmarks.sink import Counts, SinkConnection


@asynccontextmanager
async def listening(protocol: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.02)  # both ends see that the connections are closed


def spec_for(port: int, **options: object) -> Spec:
    fields = {"path": "/sink?id=%d", "pushes": 40, "seconds": 0.1, "size": 100, "connections": 4, "timeout": 5.0}
    return Spec("127.0.0.1", port, is_tls=False, **{**fields, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("renew", [False, True])
async def test_every_push_is_answered_and_counted_once(renew: bool) -> None:
    counts = Counts()
    async with listening(lambda: SinkConnection(counts)) as port:
        load = await generate(spec_for(port, renew=renew))
    assert (load.pushes, load.failed) == (40, 0)
    assert (counts.pushes, len(counts.ids), counts.size) == (40, 40, 4000)
    assert load.p50_ms > 0


async def test_guesses_are_all_different_and_what_they_get_is_counted() -> None:
    seen: list[bytes] = []

    class Refusing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            seen.append(data.partition(b"Authorization: Basic ")[2].partition(b"\r\n")[0])
            self.transport.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    async with listening(Refusing) as port:
        load = await generate(spec_for(port, size=0, guess="s4"))
    assert (load.pushes, load.failures) == (0, {"401": 40})
    assert {base64.b64decode(one) for one in seen} == {f"s4:wrong-{number}".encode() for number in range(40)}


class Stalling(asyncio.Protocol):
    """Answers nothing for a while, then everything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(0.3, self.transport.write, b"HTTP/1.1 204 No Content\r\n\r\n")


async def test_a_stall_shows_in_what_was_due_meanwhile() -> None:
    async with listening(Stalling) as port:
        load = await generate(spec_for(port, pushes=3, connections=1, seconds=0.01))
    # the second and third push wait for the first one's connection, and that counts
    assert load.pushes == 3
    assert load.p50_ms > 550
    assert load.p999_ms > 850


async def test_what_is_never_answered_is_told() -> None:
    counts = Counts()
    async with listening(lambda: SinkConnection(counts)) as port:
        load = await generate(spec_for(port, path="/sink/stall", pushes=3, size=600_000, timeout=0.2, renew=True))
        assert load.failures == {"unanswered": 3}
        for connection in list(counts.connections):
            connection.abort()


async def test_a_refused_connection_is_a_failure() -> None:
    async with listening(lambda: SinkConnection(Counts())) as port:
        pass
    load = await generate(spec_for(port, pushes=2, renew=True))
    assert load.failures == {"connect-ConnectionRefusedError": 2}


async def test_the_sink_floods_and_tells_its_counts() -> None:
    async with listening(lambda: SinkConnection(Counts())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /sink/flood?bytes=300000 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 300000" in head
        assert await reader.readexactly(300_000) == bytes(300_000)
        writer.write(b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert json.loads(await reader.read(1000)) == {"pushes": 1, "ids": 0, "bytes": 2}
        writer.close()
        await writer.wait_closed()


async def test_the_sink_takes_heads_and_bodies_in_pieces() -> None:
    counts = Counts()
    async with listening(lambda: SinkConnection(counts)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"POST /sink HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc"
        for byte in request + request:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        assert (counts.pushes, counts.size) == (2, 6)
        writer.close()
        await writer.wait_closed()


def test_loads_that_run_at_once_are_one() -> None:
    one, other = (Load(2.0, pushes, 1, p50, 2.0, 3.0, 4.0) for pushes, p50 in ((10, 1.0), (30, 3.0)))
    both = together([one, other])
    assert (both.seconds, both.pushes, both.failed, both.p50_ms, both.p999_ms) == (2.0, 40, 2, 2.0, 4.0)
