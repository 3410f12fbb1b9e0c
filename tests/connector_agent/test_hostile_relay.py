"""The connector against a relay in the wrong hands: it reaches nothing, learns nothing, and makes nothing grow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from connector_agent.app import ConnectorApp
from connector_agent.config import ConnectorConfig
from connector_agent.tunnel import Tunnel
from shared.config import read_config
from shared.http.push_head import PushHead, encode_push
from shared.logs import setup_logging
from shared.process import StopRequest
from shared.protocol import Hello, Role, Settings, frames
from shared.protocol.frames import Frame
from shared.tunnel.link import Link
from shared.tunnel.memory import MemoryTransport, memory_pair
from tests.chain.oracle import Arrival
from tests.chain.site import RawTarget
from tests.connector_agent.hostile_relay import Script
from tests.connector_agent.test_app import FakeTunnels
from tests.shared.http.model import values
from tests.support.development import Pki

pytestmark = pytest.mark.timeout(180)

SECRET = b"Basic dG9wLXNlY3JldA"
BUDGET = 1 << 20
RULES: dict[str, list[dict[str, Any]]] = {
    "exact": [{"methods": ["POST"], "path": "/exact"}],
    "below": [{"methods": ["POST", "GET"], "path": "/below", "sub_paths": True}],
}


class Watch:
    """What the process reaches for outside of itself, by Python's audit events. One hook for all tests: none can go."""

    def __init__(self) -> None:
        self.is_on = False
        self.addresses: set[object] = set()
        self.files: set[str] = set()
        self.others: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "socket.connect":
            self.addresses.add(args[1])
        elif event == "open":
            self.files.add(str(args[0]))
        elif event == "socket.getaddrinfo":
            self.addresses.add(args[:2])
        elif event in ("socket.sendto", "subprocess.Popen", "os.system", "os.exec"):
            self.others.add(f"{event} {args[:2]}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.addresses, self.files, self.others = set(), set(), set()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


WATCH = Watch()


class RelayEnd:
    """The relay's end of one tunnel; keeps what the connector said."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.is_closed = False

    def message_received(self, message: bytes) -> None:
        self.said.append(message)

    def bytes_received(self) -> None: ...

    def transport_writable(self) -> None: ...

    def transport_closing(self, code: int | None, reason: str) -> None:
        self.said.append(reason.encode())

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        self.is_closed = True


class World:
    """A connector with two targets of its own, and tunnels to whoever a test wants."""

    def __init__(self, app: ConnectorApp, targets: dict[str, RawTarget]) -> None:
        self.app = app
        self.targets = targets
        self.loop = asyncio.get_running_loop()

    def tunnel(self, settings: Settings | None = None) -> tuple[MemoryTransport, RelayEnd, Link]:
        """As Tunnels makes one, over memory; the relay's end of it."""
        app = self.app
        tunnel = Tunnel(self.loop, app.dispatcher.on_stream, lambda _: None)
        hello = Hello(instance="i", targets=app.targets.announcement())
        link = tunnel.link = Link(
            Role.CONNECTOR,
            tunnel,
            hello,
            settings=settings or Settings(),
            budget=app.budget,
            gaps=app.gaps,
            loop=self.loop,
        )
        ours, theirs = memory_pair(self.loop)
        end = RelayEnd()
        ours.receiver, theirs.receiver = link, end
        link.start(ours)
        return theirs, end, link

    async def session(self, seed: int, count: int) -> RelayEnd:
        """One tunnel's life under a script."""
        theirs, end, _link = self.tunnel()
        for number, message in enumerate(Script(seed).messages(count)):
            theirs.send(message)
            if number % 4 == 0:
                await asyncio.sleep(0)
            if end.is_closed:
                break
        await asyncio.sleep(0.002)
        theirs.abort()
        await asyncio.sleep(0)
        return end

    async def until_quiet(self) -> None:
        async with asyncio.timeout(20):
            while self.app.in_flight or self.app.budget.used:
                await asyncio.sleep(0.01)

    @property
    def arrivals(self) -> dict[str, list[Arrival]]:
        return {name: target.arrivals for name, target in self.targets.items()}


@contextlib.asynccontextmanager
async def connector(folder: Path) -> AsyncIterator[World]:
    pki = Pki(folder)
    pair = pki.connector()
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET + b"\n")
    targets = {name: RawTarget() for name in RULES}
    for target in targets.values():
        await target.open()
    document = {
        "relays": ["wss://localhost:1"],
        "state_dir": "s",
        "tls": {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(pki.ca)},
        "log": {"access": "off"},
        "memory": {"budget": BUDGET},
        "targets": [
            {
                "name": name,
                "url": f"http://127.0.0.1:{targets[name].port}",
                "allow": rules,
                "headers": {"set_from_files": {"Authorization": "secret"}},
                "limits": {"body": 10_000, "connections": 8},
            }
            for name, rules in RULES.items()
        ],
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(document))
    app = ConnectorApp(path, read_config(path, ConnectorConfig), lambda _app: FakeTunnels())
    await app.start(StopRequest())
    try:
        yield World(app, targets)
    finally:
        await app.stop()
        for target in targets.values():
            await target.close()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logging("json", "info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def run(main: Callable[[], Any]) -> Any:
    """On asyncio's own loop: uvloop connects without telling Python's audit."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(main())


def is_allowed(name: str, arrival: Arrival) -> bool:
    path = arrival.target.partition(b"?")[0]
    if name == "exact":
        return arrival.method == b"POST" and path == b"/exact"
    below = path == b"/below" or (path.startswith(b"/below/") and b".." not in path and b"%" not in path)
    return arrival.method in (b"POST", b"GET") and below and b"//" not in path


def assert_nothing_forbidden(world: World, ends: list[RelayEnd], folder: Path) -> None:
    ports = {target.port for target in world.targets.values()}
    assert WATCH.addresses <= {("127.0.0.1", port) for port in ports}
    ours = (
        str(folder / "connector.yaml"),
        str(folder / "secret"),
        str(folder / "ca.pem"),
        str(folder / "connector-c1."),
    )
    assert all(name.startswith((*ours, sys.prefix, sys.base_prefix)) or name.endswith(".py") for name in WATCH.files)
    assert not WATCH.others
    for name, arrivals in world.arrivals.items():
        authority = b"127.0.0.1:%d" % world.targets[name].port
        assert arrivals, "a relay that reaches nothing proves little"
        assert world.targets[name].faults == []
        for arrival in arrivals:
            assert is_allowed(name, arrival), arrival
            assert values(arrival.headers, b"host") == [authority]
            assert values(arrival.headers, b"authorization") == [SECRET]
            names = {header.lower() for header, _ in arrival.headers}
            assert not names & {b"x-original-url", b"x-http-method-override", b"proxy", b"remote-user", b"connection"}
            assert not any(header.startswith(b"qanat-") for header in names)
    said = b"".join(message for end in ends for message in end.said)
    for told in (SECRET, b"127.0.0.1", *[b"%d" % port for port in ports]):
        assert told not in said, "the relay learns what is inside"


def test_it_reaches_what_the_config_allows_and_nothing_else(tmp_path, logged):
    async def main() -> None:
        async with connector(tmp_path) as world:
            before = world.app.config
            exposed = dict(world.app.targets.announcement())
            with WATCH.watching():
                ends = [await world.session(seed, 120) for seed in range(150)]
                await world.until_quiet()
            assert_nothing_forbidden(world, ends, tmp_path)
            assert world.app.config is before, "it took a configuration"
            assert world.app.targets.announcement() == exposed
            assert world.app.last_reload is None
        assert "a bug of ours" not in logged.getvalue()

    run(main)


def test_nothing_of_it_stays(tmp_path, logged):
    async def main() -> None:
        async with connector(tmp_path) as world:
            sizes = []
            for turn in range(3):
                for seed in range(40):
                    await world.session(1000 * turn + seed, 100)
                await world.until_quiet()
                for target in world.targets.values():
                    target.arrivals.clear()
                gc.collect()
                sizes.append(len(gc.get_objects()))
            assert sizes[2] - sizes[1] < 3000, sizes
            rendered = world.app.metrics.render()
            assert len(rendered) < 200_000, "labels of the relay's making"

    run(main)


def hello() -> bytes:
    return Script(0).hello()


def opened(number: int, head: bytes, body: bytes = b"", flags: int = 0) -> bytes:
    return Frame(frames.OPEN, flags, number, frames.open_head(0, head) + body).serialize()


def head_of(**more: Any) -> bytes:
    fields: dict[str, Any] = {"sender": "s4", "route": "all", "path": b"/exact", "headers": []} | more
    return encode_push(
        PushHead("exact", "r", 1, fields["sender"], fields["route"], b"POST", fields["path"], 0, fields["headers"])
    )


FLOODS: dict[str, Callable[[int], bytes]] = {
    "OPEN to nowhere": lambda n: opened(n, b"x" * 1000, bytes(1000)),
    "OPEN to a target": lambda n: opened(n, Script(n).head(None), bytes(999)),
    "other paths": lambda n: opened(n, head_of(path=b"/exact?%d" % n, headers=[(b"X", b"y" * 1000)]), b"", frames.END),
    "other names": lambda n: opened(
        n, head_of(sender=f"s{n}", route=f"r{n}", headers=[(b"X%d" % n, b"y")]), b"", frames.END
    ),
    "CREDIT": lambda n: frames.credit(n % 7, 0xFFFF_FFFF),
    "PING": frames.ping,
    "DRAIN": lambda n: frames.drain(n % 100),
    "unknown": lambda n: Frame(0x70, 0xFF, n, bytes(200)).serialize(),
    "RESET": lambda n: frames.reset(n, 108, refused=True),
    "DATA": lambda n: Frame(frames.DATA, 0, n, bytes(500)).serialize(),
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("reads", [True, False], ids=["a relay that reads", "a relay that never reads"])
def test_a_flood_fills_no_memory(tmp_path, logged, kind, reads):
    async def main() -> None:
        async with connector(tmp_path) as world:
            theirs, end, link = world.tunnel()
            assert link is not None
            theirs.send(hello())
            await asyncio.sleep(0)
            if not reads:
                transport = link._transport
                assert isinstance(transport, MemoryTransport)
                transport.pause()
            gc.collect()
            tracemalloc.start()
            peak = highest = 0
            try:
                for batch in range(25):
                    flood = [FLOODS[kind](number) for number in range(100 * batch + 1, 100 * batch + 101)]
                    for start in range(0, 100, 10):
                        theirs.send(b"".join(flood[start : start + 10])[: frames.MAX_MESSAGE])
                        del theirs.sent[:]
                    end.said.clear()
                    await asyncio.sleep(0)
                    highest = max(highest, world.app.budget.used)
                    if end.is_closed:
                        break
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            # The budget is for bodies and heads; a connection, its objects and what is under way come on top.
            assert highest <= 2 * BUDGET
            assert peak < 24 * BUDGET
            theirs.abort()
            await world.until_quiet()

    run(main)
