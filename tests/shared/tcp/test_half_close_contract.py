"""TCP connections and tunnel streams, over memory and over WebSockets, under the contract of half-close and reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tcp.head import ANSWER
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import memory_pair
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket_client import Endpoint, open_websocket
from shared.tunnel.websocket_server import ServerTransport
from tests.support.ends import CHECKS, Ends, StreamEnd, dial, edge_server
from tests.support.transports import OpenAcceptor, tls_contexts, websocket_server


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def runs(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return runs


@asynccontextmanager
async def tcp() -> AsyncIterator[Ends]:
    accepted: list[Any] = []
    server = await edge_server(accepted.append)
    near = await dial(server.sockets[0].getsockname()[1])
    while not accepted or not accepted[0].edge:
        await asyncio.sleep(0)
    yield Ends(near, accepted[0])
    near.reset()
    accepted[0].reset()
    server.close()
    await asyncio.sleep(0.01)


class _Owner:
    """A LinkHandler of either side."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self.accepted: asyncio.Queue[StreamEnd] = asyncio.Queue()

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.ready.set()

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.closed.set()

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        one = StreamEnd()
        one.stream = stream
        stream.handler = one
        stream.answer(ANSWER)
        self.accepted.put_nowait(one)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


async def _streams(relay: Link, owners: tuple[_Owner, _Owner]) -> Ends:
    for owner in owners:
        await owner.ready.wait()
    near = StreamEnd()
    near.stream = relay.open_stream(near, b"head")
    far = await owners[1].accepted.get()
    await near.answered.wait()
    return Ends(near, far)


def _link(role: Role, owner: Any) -> Link:
    loop = asyncio.get_running_loop()
    return Link(
        role, owner, Hello(instance="i"), settings=Settings(), budget=MemoryBudget(), gaps=GapWatch(loop), loop=loop
    )  # fmt: skip


@asynccontextmanager
async def memory_streams() -> AsyncIterator[Ends]:
    owners = _Owner(), _Owner()
    relay, connector = _link(Role.RELAY, owners[0]), _link(Role.CONNECTOR, owners[1])
    ours, theirs = memory_pair(asyncio.get_running_loop())
    ours.receiver, theirs.receiver = relay, connector
    relay.start(ours)
    connector.start(theirs)
    yield await _streams(relay, owners)
    relay.abort()
    connector.abort()
    await asyncio.sleep(0)


class _LinkAcceptor(OpenAcceptor):
    """Makes a relay's link of the connection that it accepts."""

    def __init__(self, owner: _Owner) -> None:
        super().__init__()
        self.link = _link(Role.RELAY, owner)

    def opened(self, transport: ServerTransport) -> Any:
        asyncio.get_running_loop().call_soon(self.link.start, transport)
        return self.link


@asynccontextmanager
async def websocket_streams() -> AsyncIterator[Ends]:
    owners = _Owner(), _Owner()
    acceptor, connector = _LinkAcceptor(owners[0]), _link(Role.CONNECTOR, owners[1])
    async with websocket_server(acceptor) as port:
        raw, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
        raw.pause_reading()
        endpoint = Endpoint("localhost", port, "/")
        transport = await open_websocket(raw, tls_contexts()[1], ReadBuffers(), endpoint, lambda _: connector)
        connector.start(transport)
        yield await _streams(acceptor.link, owners)
        acceptor.link.abort()
        connector.abort()
        for owner in owners:
            await owner.closed.wait()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [tcp, memory_streams, websocket_streams], ids=lambda make: make.__name__)
def test_contract(run, make, check):
    async def main() -> None:
        async with make() as ends:
            await check(ends)

    run(main())
