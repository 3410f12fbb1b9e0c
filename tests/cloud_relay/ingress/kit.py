"""A relay's ingress without sockets, tunnels or time: fakes that record, and a sender that reads like a transcript.

relay = Relay()
sender = relay.connect()
sender.send(post("/metrics", b"data"))
relay.stream.answer(200, b"ok")
assert sender.answers() == [(200, b"ok")]
relay.assert_nothing_left()
"""

from __future__ import annotations

from typing import Any, cast

from cloud_relay.gates import Gate
from cloud_relay.health import RelayState
from cloud_relay.ingress.connection import SenderConnection
from cloud_relay.ingress.context import Ingress, IngressContext, IngressSettings
from cloud_relay.limits import Limits
from cloud_relay.metrics import ListenerMetrics, RelayMetrics, SenderMetrics
from cloud_relay.routing import Route, RoutingTable
from cloud_relay.senders import Realm, Sender
from shared.errors import FAULTS
from shared.protocol import MemoryBudget
from tests.cloud_relay.ingress.fakes import (
    Clock,
    FakeAccessLog,
    FakeAuthenticator,
    FakeRegistry,
    FakeSession,
    FakeStream,
    FakeTransport,
)
from tests.cloud_relay.ingress.wire import Answer, parse_answers


class Relay:
    """One route, `push.example.com/metrics` and below, of tenant acme, for sender `s4`, to target `prom` in `dc1`."""

    def __init__(
        self,
        *,
        connectors: int = 1,
        settings: IngressSettings | None = None,
        max_body: int = 1 << 20,
        hold: float = 3.0,
        timeout: float = 20.0,
        idempotent: bool = False,
        quota: str = "quota-exceeded",
        max_in_flight: int = 64,
        pass_authorization: bool = False,
        upgrades: bool = False,
        budget: int = 1 << 24,
        clock: Any = None,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.metrics = ListenerMetrics("test")
        self.route_metrics = RelayMetrics().route("acme", "metrics")
        self.sender = Sender("acme", "s4", Gate(max_in_flight), SenderMetrics("acme", "s4"))
        self.route = Route(
            tenant="acme", name="metrics", host=b"push.example.com", path=b"/metrics", sub_paths=True, location="dc1",
            target="prom", senders=frozenset({self.sender}), realm=Realm("acme", ()), gate=Gate(max_in_flight),
            metrics=self.route_metrics, quota_fault=FAULTS[quota], max_body=max_body, hold=hold, timeout=timeout,
            idempotent=idempotent, pass_authorization=pass_authorization, www_authenticate=b'Basic realm="acme"',
            upgrades=upgrades, idle_timeout=60.0,
        )  # fmt: skip
        self.limits = Limits()
        self.budget = MemoryBudget(budget)
        self.registry = FakeRegistry()
        self.authenticator = FakeAuthenticator()
        self.authenticator.verdict = self.sender
        self.access_log = FakeAccessLog()
        self.bugs: list[BaseException] = []
        self.streams: list[FakeStream] = []
        self.connections: list[SenderConnection] = []
        self.lost: list[SenderConnection] = []
        self.context = IngressContext(
            routing=RoutingTable([self.route]),
            authenticator=self.authenticator,
            limits=self.limits,
            registry=cast(Any, self.registry),
            budget=self.budget,
            access_log=self.access_log,
            settings=settings or IngressSettings(),
        )
        self.ingress = Ingress(cast(Any, self.clock), self.context, lambda error, _: self.bugs.append(error))
        for number in range(connectors):
            self.attach(f"c{number + 1}")

    def attach(self, connector: str = "c1") -> FakeSession:
        session = FakeSession(self, connector)
        self.registry.attach(session)
        return session

    def connect(self, *, is_tls: bool = False) -> SenderSide:
        transport = FakeTransport(self, is_tls=is_tls)
        connection = SenderConnection(
            self.ingress, self.metrics, self.lost.append, source="192.0.2.7", scheme="https" if is_tls else "http"
        )
        transport.protocol = connection
        self.connections.append(connection)
        connection.connection_made(transport)
        return SenderSide(self, transport, connection)

    @property
    def stream(self) -> FakeStream:
        """The stream opened last."""
        return self.streams[-1]

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    @property
    def in_flight(self) -> tuple[int, int, int]:
        return self.limits.in_flight, self.sender.gate.in_flight, self.route.gate.in_flight

    def assert_nothing_left(self, *, bugs: int = 0) -> None:
        """What is left open? Nothing that was counted, waited for, or queued."""
        self.clock.run()
        assert len(self.bugs) == bugs, self.bugs
        assert self.in_flight == (0, 0, 0)
        assert self.route_metrics.in_flight == 0
        assert self.budget.used == 0
        assert self.registry.waiters == []
        for stream in self.streams:
            assert stream.is_over, f"left open: {stream.head.request_id}"
            assert stream.taken == stream.handed, "credit was kept"

    def assert_all_closed(self) -> None:
        """And no connection, and no timer."""
        self.clock.run()
        assert len(self.lost) == len(self.connections)
        assert self.clock.armed == 0

    def stop(self) -> None:
        self.ingress.state = RelayState.STOPPED


class SenderSide:
    """What a sender does and sees."""

    def __init__(self, relay: Relay, transport: FakeTransport, connection: SenderConnection) -> None:
        self.relay = relay
        self.transport = transport
        self.connection = connection
        self.waiting: list[bytes] = []

    def send(self, data: bytes, *, by: int = 0) -> None:
        """Send, in segments of `by` bytes. What does not fit while reading is paused waits."""
        pieces = [data[i : i + by] for i in range(0, len(data), by)] if by else [data]
        self.waiting += pieces
        self.flush()

    def flush(self) -> None:
        """What waited for reading to go on arrives."""
        while self.waiting and not self.transport.is_paused and not self.transport.is_closing():
            self.transport.protocol.data_received(self.waiting.pop(0))
        self.relay.clock.run()

    def hang_up(self) -> None:
        """FIN: asyncio calls eof_received, and closes since it says False."""
        if not self.transport.is_lost:
            if not self.transport.protocol.eof_received():
                self.transport.close()
            self.relay.clock.run()

    def vanish(self) -> None:
        """RST, or the network is gone."""
        self.transport.lose(ConnectionResetError())
        self.relay.clock.run()

    @property
    def received(self) -> bytes:
        return b"".join(self.transport.writes)

    def answers(self, method: str = "POST") -> list[tuple[int, bytes]]:
        """The answers so far, as (status, body); the last one may be incomplete."""
        return [(answer.status, answer.body) for answer in parse_answers(self.received, [method])]

    @property
    def last(self) -> Answer:
        return parse_answers(self.received)[-1]

    @property
    def is_closed(self) -> bool:
        self.relay.clock.run()
        return self.transport.is_closing()
