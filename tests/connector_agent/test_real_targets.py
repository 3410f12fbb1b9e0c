"""Pushes to targets over real loopback sockets, plain and TLS, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self, cast

import pytest
import trustme
import uvloop

from connector_agent.access import AccessRules, Rule
from connector_agent.dispatch import Dispatcher
from connector_agent.headers_policy import HeaderPolicy
from connector_agent.metrics import ConnectorMetrics
from connector_agent.targets import Target, TargetTable
from connector_agent.upstream.connect import Endpoint
from connector_agent.upstream.pool import UpstreamPool
from shared.http.push_head import PushHead, encode_push
from shared.pki.tls import target_client_context
from shared.tunnel.endings import cut_off
from shared.tunnel.gaps import GapWatch
from tests.connector_agent.kit import FakeStream

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1 << 20


class Place:
    """A target that follows a script on each connection, and a dispatcher that knows it as `t`."""

    def __init__(self, script: Script, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.script = script
        self.contexts = contexts
        self.connections = 0
        self.faults: list[BaseException] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.metrics = ConnectorMetrics(process=False)

    async def __aenter__(self) -> Self:
        server_context = self.contexts[0] if self.contexts else None
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=server_context)
        port = self.server.sockets[0].getsockname()[1]
        endpoint = Endpoint("localhost", port, self.contexts[1] if self.contexts else None)
        counts = self.metrics.target("t")
        self.pool = UpstreamPool(endpoint, self.loop, counts=counts)
        rules = AccessRules([Rule(("POST", "GET"), "/", sub_paths=True)])
        target = Target("t", "http://localhost", rules, HeaderPolicy("localhost"), self.pool, counts, upgrades=True)
        self.table = TargetTable([target])
        self.dispatcher = Dispatcher(self.table, self.loop, self.metrics, None, GapWatch(self.loop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.table.close()
        self.server.close()
        await self.server.wait_closed()
        for _attempt in range(100):
            if not self.tasks and not self.pool.total:
                break
            await asyncio.sleep(0.01)
        assert not self.tasks
        await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            await self.script(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.faults.append(error)
        finally:
            writer.transport.abort()
            self.tasks.discard(task)

    async def push(self, body: bytes = b"", end: bool = True, method: str = "POST") -> FakeStream:
        stream = FakeStream()
        stream.handed_over += len(body)
        push = PushHead("t", "r", 1, "s", "r", method.encode(), b"/x", None, [])
        self.dispatcher.on_stream(stream, encode_push(push), body, end)  # type: ignore[arg-type]  # a fake
        return stream

    async def upgrade(self) -> FakeStream:
        stream = FakeStream()
        push = PushHead("t", "r", 1, "s", "r", b"GET", b"/ws", None, [], b"websocket")
        self.dispatcher.on_stream(stream, encode_push(push), b"", end=False)  # type: ignore[arg-type]  # a fake
        async with asyncio.timeout(10):
            while not stream.answers:
                await asyncio.sleep(0.002)
        return stream

    async def until_over(self, *streams: FakeStream) -> None:
        async with asyncio.timeout(10):
            # An upgraded connection counts until its last bytes are out, a moment after its stream.
            while self.dispatcher.in_flight or not all(stream.is_over for stream in streams):
                await asyncio.sleep(0.002)
        for stream in streams:
            assert stream.consumed_bytes == stream.handed_over


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A request with Content-Length or in chunks; IncompleteReadError at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    if b"chunked" in head:
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif b"Content-Length: " in head:
        body = await reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
    return head, body


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder: Path = tmp_path_factory.mktemp("pki")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    return server, target_client_context(folder / "ca.pem")


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(params=["plain", "tls"])
def tell(
    request: pytest.FixtureRequest, contexts: Contexts, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> Callable[[Script, Callable[[Place], Coroutine[Any, Any, None]]], None]:
    """Run a story against a script, on this parametrisation's loop and transport."""

    def run(script: Script, story: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with Place(script, contexts if request.param == "tls" else None) as place:
                await story(place)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return run


Tell = Callable[[Script, Callable[[Place], Coroutine[Any, Any, None]]], None]


def test_pushes_share_a_connection(tell: Tell) -> None:
    bodies = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            bodies.append((await read_request(reader))[1])
            writer.write(OK)

    async def story(place: Place) -> None:
        for number in range(5):
            stream = await place.push(b"push %d" % number)
            await place.until_over(stream)
            assert stream.log == ["answer 200 [2] end"]
        assert bodies == [b"push %d" % number for number in range(5)]
        assert place.connections == 1

    tell(script, story)


def test_many_pushes_at_once(tell: Tell) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _head, body = await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def story(place: Place) -> None:
        streams = [await place.push(b"push %d" % number) for number in range(300)]
        await place.until_over(*streams)
        assert [stream.body for stream in streams] == [b"push %d" % number for number in range(300)]
        assert place.connections <= 64

    tell(script, story)


SWITCH = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_an_upgrade_is_a_stream_both_ways_until_both_ends(tell: Tell) -> None:
    heard = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"Upgrade: websocket\r\n\r\n")
        writer.write(SWITCH + b"first")
        heard.append(await reader.readexactly(MIB))
        writer.write(b"x" * MIB)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def story(place: Place) -> None:
        stream = await place.upgrade()
        stream.push_data(b"y" * MIB)
        async with asyncio.timeout(10):
            while not stream.ended:
                await asyncio.sleep(0.002)
        stream.push_data(b"", end=True)
        await place.until_over(stream)
        assert heard == [b"y" * MIB]
        assert stream.body == b"first" + b"x" * MIB
        assert place.metrics.target("t").faults == {}
        assert place.pool.idle == 0

    tell(script, story)


@pytest.mark.parametrize("by", ["target", "relay"])
def test_an_upgrade_that_is_cut_off_never_looks_whole(tell: Tell, by: str) -> None:
    seen: list[BaseException | bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"half")
        await writer.drain()
        if by == "target":
            cut_off(cast(asyncio.Transport, writer.transport))
            return
        try:
            seen.append(await reader.read())
        except OSError as error:
            seen.append(error)

    async def story(place: Place) -> None:
        stream = await place.upgrade()
        if by == "relay":
            stream.relay_resets()
        await place.until_over(stream)
        assert not stream.ended
        assert place.metrics.target("t").faults == {"target-lost" if by == "target" else "sender-gone": 1}

    tell(script, story)
    # Plain asyncio's reader hides a TLS session without a goodbye; a RST it does not.
    assert by == "target" or isinstance(seen[0], OSError) or seen == [b""]


def test_large_bodies_both_ways_at_once(tell: Tell) -> None:
    """An echo that begins before the push has ended; credit and buffers stay bounded all the way."""
    chunk = bytes(range(256)) * 256

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            data = (await reader.readexactly(size + 2))[:-2]
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        await reader.read()

    async def story(place: Place) -> None:
        stream = await place.push(chunk, end=False)
        for number in range(128):
            while stream.handed_over - stream.consumed_bytes > MIB:
                await asyncio.sleep(0.001)
            stream.push_data(chunk, end=number == 127)
        await place.until_over(stream)
        assert stream.body == chunk * 129

    tell(script, story)


def test_a_slow_target_holds_credit(tell: Tell) -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while int(size := (await reader.readuntil(b"\r\n"))[:-2], 16):
            await reader.readexactly(int(size, 16) + 2)
        await reader.readexactly(2)
        writer.write(OK)
        await writer.drain()

    async def story(place: Place) -> None:
        stream = await place.push(b"", end=False)
        pushed = 0
        while stream.handed_over - stream.consumed_bytes < MIB and pushed < 64:
            stream.push_data(b"x" * (256 * 1024))
            pushed += 1
            await asyncio.sleep(0.005)
        assert stream.handed_over - stream.consumed_bytes >= MIB
        go.set()
        stream.push_data(b"", end=True)
        await place.until_over(stream)

    tell(script, story)


def test_a_sender_that_does_not_read_stops_the_target(tell: Tell) -> None:
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        for _ in range(64):
            writer.write(b"x" * MIB)
            written += 1
            await writer.drain()
        await reader.read()

    async def story(place: Place) -> None:
        stream = FakeStream()
        stream.holds_back = True
        push = PushHead("t", "r", 1, "s", "r", b"GET", b"/x", None, [])
        place.dispatcher.on_stream(stream, encode_push(push), b"", True)  # type: ignore[arg-type]  # a fake
        await asyncio.sleep(0.3)
        stuck = written
        await asyncio.sleep(0.1)
        assert written == stuck < 60
        async with asyncio.timeout(20):
            while not stream.is_over:
                stream.relay_reads()
                await asyncio.sleep(0.001)
        assert len(stream.body) == 64 * MIB
        assert stream.ended

    tell(script, story)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_target_that_resets(tell: Tell, answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(0.02)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def story(place: Place) -> None:
        stream = await place.push(b"x")
        await place.until_over(stream)
        assert stream.log[-1] == ("reset connection-closed" if answer else "reset target-lost")
        assert place.pool.total == 0

    tell(script, story)


def test_an_answer_until_close(tell: Tell) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        writer.close()  # over TLS with a close_notify
        await writer.wait_closed()

    async def story(place: Place) -> None:
        stream = await place.push(b"x")
        await place.until_over(stream)
        assert stream.body == b"all of it"
        assert stream.ended

    tell(script, story)


def test_an_answer_until_close_whose_tls_is_cut(contexts: Contexts, loop_factory: Any) -> None:
    """Without a close_notify anybody on the path could have ended it: it is no answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart of it")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()  # a FIN, and no close_notify

    async def main() -> None:
        async with Place(script, contexts) as place:
            stream = await place.push(b"x")
            await place.until_over(stream)
            assert stream.log[-1] == "reset connection-closed"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_the_sender_hangs_up_and_the_target_sees_it(tell: Tell) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async def story(place: Place) -> None:
        stream = await place.push(b"x" * 10, end=False)
        await asyncio.sleep(0.05)
        stream.relay_resets()
        async with asyncio.timeout(5):
            while not place.faults:
                await asyncio.sleep(0.005)
        assert isinstance(place.faults[0], ConnectionResetError | asyncio.IncompleteReadError)
        assert place.pool.total == 0

    tell(script, story)


def test_an_idle_connection_that_the_target_closes_is_noticed(tell: Tell) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)

    async def story(place: Place) -> None:
        for _ in range(2):
            stream = await place.push(b"x")
            await place.until_over(stream)
            assert stream.ended
            async with asyncio.timeout(5):
                while place.pool.total:
                    await asyncio.sleep(0.005)

    tell(script, story)


def test_one_byte_at_a_time(tell: Tell) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        for byte in b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + chunked:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await reader.read()

    async def story(place: Place) -> None:
        stream = await place.push(b"x")
        await place.until_over(stream)
        assert stream.log[0] == "interim 103"
        assert stream.body == b"ok"

    tell(script, story)
