"""A registry with sessions that are made up, probes that are answered by hand or at once, and virtual time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from cloud_relay.admit import Identity
from cloud_relay.probing.book import HealthBook
from cloud_relay.probing.prober import Prober, ProbeSettings
from cloud_relay.probing.record import TargetRecord
from cloud_relay.registry import Registry
from cloud_relay.session import Session
from shared.errors import FAULTS, LocalFault
from shared.probe import Verdict, decode_question, encode_answer
from shared.protocol.stream import StreamHandler

GOOD = Verdict("", 0.0, 0.001)
BAD = Verdict("target-unreachable", 0.0, 0.002)


def key(target: str = "t") -> tuple[str, str, str]:
    return ("acme", "dc1", target)


class AskedStream:
    """The relay's end of a probe."""

    def __init__(self, handler: StreamHandler, head: bytes, at: float) -> None:
        self.handler = handler
        self.target = decode_question(head)
        self.at = at
        self.was_reset = ""
        self.was_sent = self.is_writable = True
        self.deadline = 0.0
        self.consumed_bytes = 0

    def answer(self, verdict: Verdict = GOOD) -> None:
        self.handler.on_answer(encode_answer(verdict), b"", end=True, interim=False)

    def refuse(self, code: str) -> None:
        self.handler.on_reset(FAULTS[code].wire, refused=True)

    def reset(self, wire_code: int, refused: bool = False) -> None:
        self.was_reset = "yes"

    def consumed(self, n: int) -> None:
        self.consumed_bytes += n

    def send(self, data: bytes, end: bool = False) -> None:
        raise AssertionError


class AskedLink:
    """A session's link. With `verdict` it answers at once, but never from within the call."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.can_open = self.accepts = True
        self.is_gathering = False
        self.in_flight = 0
        self.asked: list[AskedStream] = []
        self.verdict: Verdict | None = None

    def open_stream(
        self, handler: StreamHandler, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> Any:
        assert not body
        assert end
        if not self.can_open:
            raise LocalFault("tunnel-refused")
        stream = AskedStream(handler, head, self._world.now)
        self.asked.append(stream)
        self._world.times.append(self._world.now)
        if self.verdict is not None:
            self._world.loop.call_soon(stream.answer, self.verdict)
        return stream


class World:
    """`times` are those at which anybody was asked."""

    def __init__(self, *wanted: str, **settings: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.registry = Registry(self.loop)
        self.book = HealthBook(self.registry, self.loop.time)
        self.registry.watcher = self.book
        self.settings = ProbeSettings(**settings)
        self.prober = Prober(self.loop, self.book)
        self.times: list[float] = []
        self.wants(*(wanted or ("t",)))
        self.prober.start()

    @property
    def now(self) -> float:
        return self.loop.time()

    def wants(self, *targets: str) -> None:
        self.prober.use({key(target) for target in targets}, self.settings)

    def attach(
        self, connector: str = "c1", *targets: str, verdict: Verdict | None = None, can_probe: bool = True
    ) -> tuple[Session, AskedLink]:
        identity = Identity("acme", "dc1", connector, "ab", datetime(2030, 1, 1, tzinfo=UTC))
        link = AskedLink(self)
        link.verdict = verdict
        kinds = dict.fromkeys(targets or ("t",), "http")
        session: Any = Session(identity, link, "i1", kinds, self.now, 1, answers_probes=can_probe)  # type: ignore[arg-type]
        self.registry.attach(session)
        return session, link

    def record(self, connector: str = "c1", target: str = "t") -> TargetRecord:
        found = self.book.find(key(target), connector)
        assert found is not None
        return found

    def fail(self, connector: str = "c1", times: int = 1, code: str = "target-unreachable") -> None:
        for _ in range(times):
            self.book.failed(key(), connector, code, self.now)

    def chosen(self) -> set[str]:
        """Connectors that pushes go to."""
        found = [self.registry.choose(*key()) for _ in range(40)]
        return {one.identity.connector for one in found if one is not None}

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
