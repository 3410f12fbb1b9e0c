"""Both sides in one process, without sockets: an ingress, a tunnel in memory, a dispatcher, a target that answers 204.

Everything between the senders' transports and the target's is the real thing, so that its calls can be counted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from cloud_relay.admit import Identity
from cloud_relay.credentials import Basic, KnownPassword, Passwords, PasswordUser
from cloud_relay.registry import Registry
from cloud_relay.senders import Authenticator, Realm
from cloud_relay.session import Session
from cloud_relay.throttle import FailureThrottle
from connector_agent.dispatch import Dispatcher
from connector_agent.tunnel import Tunnel
from shared.access_log import AccessLog
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import memory_pair
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import post
from tests.connector_agent.kit import FakeTransport, World

ANSWER = b"HTTP/1.1 204 No Content\r\nServer: target\r\nDate: Thu, 26 Nov 2026 12:00:00 GMT\r\n\r\n"
PUSH = post(b"q" * 2048, authorization="Basic czQ6cmlnaHQ=", content_type="application/octet-stream")  # s4:right
TARGET = "t"

ROOT = Path(__file__).resolve().parents[2]
SIDES = {"relay": "cloud_relay", "connector": "connector_agent", "shared": "shared"}
NOT_OURS = str(ROOT / "shared/tunnel/memory.py")


class Password:
    """A KnownSecret whose hash is fast."""

    is_slow = False

    def verify(self, secret: bytes) -> bool:
        return secret == b"right"


class PromptTarget(FakeTransport):
    """Answers each push in the next turn of the loop."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        self.loop.call_soon(self.connection.data_received, ANSWER)


class AtRelay:
    """The LinkHandler of the relay's end: a session as soon as the tunnel is up."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.session: Session | None = None

    def on_ready(self, link: Link, hello: Hello) -> None:
        identity = Identity("acme", "dc1", "c1", "ab", datetime(2030, 1, 1, tzinfo=UTC))
        self.session = Session(identity, link, "i1", {TARGET: "http"}, 0.0, 1)
        self.registry.attach(self.session)

    def on_room(self, link: Link) -> bool:
        return self.session is not None and self.registry.on_room(self.session)

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None: ...
    def on_targets(self, link: Link, targets: Any) -> None: ...
    def on_drain(self, link: Link, timeout: float) -> None: ...
    def on_replace(self, link: Link, timeout: float) -> None: ...
    def on_usable(self, link: Link) -> None: ...
    def on_closed(self, link: Link, code: str, detail: str) -> None: ...

    def on_handler_error(self, link: Link, error: Exception) -> None:
        raise error


class WholePath:
    """Push with `push(times)`: each sender has one push in flight, and sends the next when all are answered."""

    def __init__(self, senders: int, folder: Path, max_streams: int = 4096) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.files = [os.open(folder / name, os.O_WRONLY | os.O_CREAT) for name in ("relay.log", "connector.log")]
        logs = [AccessLog(loop, fd) for fd in self.files]
        self.relay = relay = Relay(connectors=0, clock=loop, max_in_flight=1024)
        relay.route.target, relay.route.key = TARGET, ("acme", "dc1", TARGET)
        users = [PasswordUser(b"s4", [KnownPassword(Password(), relay.sender)])]
        basic = Basic(Passwords("acme", users, _no_pool(), FailureThrottle()))
        relay.route.realm = Realm("acme", [basic])
        registry = Registry(loop)
        relay.ingress.context = replace(
            relay.context, registry=registry, authenticator=Authenticator(), access_log=logs[0]
        )
        self.world = world = World(max_connections=senders)
        world.pool._connector = self._connect
        dispatcher = Dispatcher(world.table, loop, world.metrics, logs[1], world.gaps)
        ends = memory_pair(loop)
        tunnel = Tunnel(loop, dispatcher.on_stream, lambda _: None)
        owners: tuple[Any, Any] = (AtRelay(registry), tunnel)
        hello = Hello(instance="i1", targets={TARGET: "http"}, max_streams=max_streams)
        self.links = []
        for role, owner, end in zip((Role.RELAY, Role.CONNECTOR), owners, ends, strict=True):
            link = Link(
                role, owner, hello, settings=Settings(), loop=loop, budget=MemoryBudget(), gaps=GapWatch(loop),
            )  # fmt: skip
            end.receiver = link
            link.start(end)
            self.links.append(link)
        self.senders = [relay.connect(is_tls=True) for _ in range(senders)]

    async def _connect(self, endpoint: Any, factory: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> Any:
        transport, connection = PromptTarget(loop, False), factory()
        transport.protocol = connection
        connection.connection_made(transport)
        return connection

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    async def push(self, times: int) -> int:
        """The number of pushes that were answered with 204."""
        answered = 0
        for _ in range(times):
            for sender in self.senders:
                sender.connection.data_received(PUSH)
            await self.settle()
            answered += self.answered()
        return answered

    def answered(self) -> int:
        """How many 204 the senders got since it was last asked."""
        count = 0
        for sender in self.senders:
            count += b"".join(sender.transport.writes).count(b"HTTP/1.1 204 ")
            sender.transport.writes.clear()
        return count

    async def close(self) -> None:
        for link in self.links:
            link.abort()
        for sender in self.senders:
            sender.connection.abort()
        self.world.pool.abort()
        await self.settle()
        for connection in list(self.world.pool._all):
            connection.abort()
        await self.settle()
        for fd in self.files:
            os.close(fd)


def _no_pool() -> Any:
    """Nothing here takes a slow hash."""
    return None


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Counts calls of our functions (`file:function`), and of C functions out of them (`file:function C name`)."""
    calls: Counter[str] = Counter()
    names: dict[str, str] = {}

    def name_of(path: str) -> str:
        name = names.get(path)
        if name is None:
            is_ours = path != NOT_OURS and any(path.startswith(f"{ROOT / top}/") for top in SIDES.values())
            name = names[path] = path.removeprefix(f"{ROOT}/") if is_ours else ""
        return name

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event in {"call", "c_call"} and (name := name_of(frame.f_code.co_filename)):
            key = f"{name}:{frame.f_code.co_qualname}" if hasattr(frame.f_code, "co_qualname") else name
            calls[key if event == "call" else f"{key} C {arg.__name__}"] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
