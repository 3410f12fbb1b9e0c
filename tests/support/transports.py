"""Pairs of message transports to test with: in memory, Unix sockets, WebSockets over TLS; on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trustme
import uvloop

from shared.tunnel.local import LocalTransport
from shared.tunnel.memory import memory_pair
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MessageReceiver, MessageTransport
from shared.tunnel.websocket_client import ClientTransport, Endpoint, open_websocket
from shared.tunnel.websocket_server import ServerTransport, UpgradeRequest

Closed = tuple[int | None, str, BaseException | None]


@dataclass
class Recorder:
    """A receiver that keeps what it got. `transport` is its own end; `then` is called with each message."""

    transport: MessageTransport = field(default_factory=lambda: None)  # type: ignore[assignment]  # set at once
    messages: list[bytes] = field(default_factory=list)
    alive: int = 0
    writable: int = 0
    closing: list[tuple[int | None, str]] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    then: Callable[[bytes], None] | None = None
    on_writable: Callable[[], None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def message_received(self, message: bytes) -> None:
        self._note("message")
        self.messages.append(message)
        if self.then is not None:
            self.then(message)

    def bytes_received(self) -> None:
        self._note("bytes")
        self.alive += 1

    def transport_writable(self) -> None:
        self._note("writable")
        self.writable += 1
        if self.on_writable is not None:
            self.on_writable()

    def transport_closing(self, code: int | None, reason: str) -> None:
        self._note("closing")
        self.closing.append((code, reason))

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        self._note("closed")
        self.closed.append((code, reason, error))

    def _note(self, what: str) -> None:
        if self.closed:
            self.late.append(what)
        self._changed.set()

    async def until(self, condition: Callable[[], bool], limit: float = 10.0) -> None:
        """Wait for something that a call brings about."""
        async with asyncio.timeout(limit):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_closed(self) -> Closed:
        await self.until(lambda: bool(self.closed))
        return self.closed[0]


@dataclass
class Pair:
    """Two joined ends. `near` dialled, `far` accepted."""

    near: Recorder
    far: Recorder


@dataclass
class OpenAcceptor:
    """Accepts everybody; hands each connection a new Recorder."""

    accepted: asyncio.Queue[Recorder] = field(default_factory=asyncio.Queue)
    requests: list[UpgradeRequest] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    failures: list[BaseException | None] = field(default_factory=list)
    answer: bytes | None = None

    def decide(self, request: UpgradeRequest) -> bytes | None:
        self.requests.append(request)
        return self.answer

    def refuse(self, fault_code: str, detail: str) -> bytes:
        self.refusals.append((fault_code, detail))
        return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    def opened(self, transport: ServerTransport) -> MessageReceiver:
        recorder = Recorder(transport)
        self.accepted.put_nowait(recorder)
        return recorder

    def failed(self, transport: ServerTransport, error: BaseException | None) -> None:
        self.failures.append(error)


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's), the client with a certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.num_tickets = 0
    server.verify_mode = ssl.CERT_OPTIONAL
    authority().issue_cert("localhost", key_type=trustme.KeyType.ECDSA).configure_cert(server)
    authority().configure_trust(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(client)
    authority().issue_cert("client.test", key_type=trustme.KeyType.ECDSA).configure_cert(client)
    return server, client


@contextlib.asynccontextmanager
async def websocket_server(acceptor: OpenAcceptor, time_limit: float = 5.0) -> AsyncIterator[int]:
    """A listener on a free port of loopback."""
    loop = asyncio.get_running_loop()
    buffers = ReadBuffers()
    server = await loop.create_server(
        lambda: ServerTransport(loop, tls_contexts()[0], buffers, acceptor, time_limit), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def dial(port: int, context: ssl.SSLContext | None = None, path: str = "/") -> Recorder:
    """Open a WebSocket to the listener. Raises what `open_websocket` does."""
    loop = asyncio.get_running_loop()
    raw, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    raw.pause_reading()
    recorder = Recorder()

    def open_receiver(transport: ClientTransport) -> MessageReceiver:
        recorder.transport = transport
        return recorder

    endpoint = Endpoint("localhost", port, path)
    await open_websocket(raw, context or tls_contexts()[1], ReadBuffers(), endpoint, open_receiver)
    return recorder


@contextlib.asynccontextmanager
async def websocket_pair() -> AsyncIterator[Pair]:
    acceptor = OpenAcceptor()
    async with websocket_server(acceptor) as port:
        near = await dial(port)
        far = await acceptor.accepted.get()
        try:
            yield Pair(near, far)
        finally:
            await end_all(near, far)


@contextlib.asynccontextmanager
async def in_memory_pair() -> AsyncIterator[Pair]:
    first, second = memory_pair(asyncio.get_running_loop())
    pair = Pair(Recorder(first), Recorder(second))
    first.receiver, second.receiver = pair.near, pair.far
    yield pair
    await end_all(pair.near, pair.far)


async def end_all(*recorders: Recorder) -> None:
    for recorder in recorders:
        recorder.transport.abort()
    for recorder in recorders:
        await recorder.until_closed()


@contextlib.asynccontextmanager
async def local_pair() -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    ends = []
    for sock in socket.socketpair():
        transport = LocalTransport(loop)
        recorder = transport.receiver = Recorder(transport)
        await loop.create_unix_connection(lambda made=transport: made, sock=sock)  # type: ignore[misc]
        ends.append(recorder)
    yield Pair(*ends)
    await end_all(*ends)


Scenario = Callable[[Pair], Awaitable[None]]


def run_in_memory(scenario: Scenario) -> None:
    _run(in_memory_pair, scenario, asyncio.new_event_loop)


def run_locally_on_asyncio(scenario: Scenario) -> None:
    _run(local_pair, scenario, asyncio.new_event_loop)


def run_locally_on_uvloop(scenario: Scenario) -> None:
    _run(local_pair, scenario, uvloop.new_event_loop)


def run_on_asyncio(scenario: Scenario) -> None:
    _run(websocket_pair, scenario, asyncio.new_event_loop)


def run_on_uvloop(scenario: Scenario) -> None:
    _run(websocket_pair, scenario, uvloop.new_event_loop)


def _run(
    make_pair: Callable[[], Any], scenario: Scenario, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with make_pair() as pair:
            await scenario(pair)
        for recorder in (pair.near, pair.far):
            assert len(recorder.closed) == 1, "transport_closed comes exactly once"
            assert recorder.late == [], "nothing comes after transport_closed"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), 30))
    assert problems == []
