"""Takes TCP connections from the dispatcher: reads the head, finds the target, counts and logs the end.

The relay is not trusted: all that it can ask for is a name, and whether it may have it is this side's config.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from connector_agent.targets import Changes
from connector_agent.tcp.delivery import TcpDelivery
from shared.access_log import timestamp
from shared.errors import FAULTS, LocalFault
from shared.tcp.head import ConnectionHead, decode_connection
from shared.tcp.splice import who_ended

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from connector_agent.dispatch import LineWriter
    from connector_agent.metrics import ConnectorMetrics
    from connector_agent.tcp.target import TcpTarget
    from shared.protocol import StreamEnd


class TcpService:
    """The `tcp:` targets by name, and every connection to them. `on_fault` is told why a connect failed."""

    __slots__ = ("_access_log", "_loop", "_metrics", "_on_fault", "_targets", "_time", "is_closed")

    def __init__(
        self,
        targets: Iterable[TcpTarget],
        loop: AbstractEventLoop,
        now: Callable[[], float],
        metrics: ConnectorMetrics,
        access_log: LineWriter | None,
        on_fault: Callable[[str, LocalFault], None],
    ) -> None:
        self._targets = {target.name: target for target in targets}
        self._loop = loop
        self._time = now
        self._metrics = metrics
        self._access_log = access_log
        self._on_fault = on_fault
        self.is_closed = False

    @property
    def by_name(self) -> Mapping[str, TcpTarget]:
        """All targets."""
        return MappingProxyType(self._targets)

    @property
    def in_flight(self) -> int:
        """Connections that are not over. Those to targets that were replaced count no more."""
        return sum(len(target.deliveries) for target in self._targets.values())

    def replace(self, targets: Iterable[TcpTarget]) -> Changes:
        """Put `targets` in place of all. Connections to one that changed go on; those to one that is gone are reset."""
        old = self._targets
        new = {target.name: target for target in targets}
        changed = []
        for name, target in new.items():
            before = old.get(name)
            if before is None:
                continue
            if before.fingerprint == target.fingerprint:
                new[name] = before
            else:
                changed.append(name)
                target.deliveries = before.deliveries  # they still count against its limit, and end with it
        removed = [name for name in old if name not in new]
        self._targets = new
        for name in removed:
            old[name].end_all()
        return Changes([name for name in new if name not in old], removed, changed, [])

    def on_stream(self, stream: StreamEnd, head: bytes, body: bytes, end: bool) -> None:
        """A connection, with the first of its bytes."""
        try:
            connection = decode_connection(head)
        except LocalFault as error:
            self._refuse(stream, None, error.fault.code)
            return
        target = self._targets.get(connection.target)
        if target is None:
            self._refuse(stream, connection, "unknown-target")
        elif self.is_closed:
            self._refuse(stream, connection, "connector-draining")
        elif target.is_full:
            target.metrics.ended("connector-overloaded", 0.0)
            self._refuse(stream, connection, "connector-overloaded")
        else:
            target.metrics.connections += 1
            delivery = TcpDelivery(self._loop, self._time, stream, connection, target, self._over)
            target.metrics.live.add(delivery)
            stream.handler = delivery
            delivery.start(body, end)

    def on_gap(self) -> None:
        """The process was away."""
        for delivery in self._all():
            delivery.on_gap()

    def abort(self, code: str) -> None:
        """Give up all that is under way, and take no more."""
        self.is_closed = True
        for delivery in self._all():
            delivery.fail(FAULTS[code], refused=not delivery.connected_at)

    def _all(self) -> list[TcpDelivery]:
        return [delivery for target in self._targets.values() for delivery in target.deliveries]

    def _over(self, delivery: TcpDelivery) -> None:
        target, metrics = delivery.target, delivery.target.metrics
        seconds = self._time() - delivery.began
        code = delivery.fault.code if delivery.fault is not None else ""
        metrics.live.discard(delivery)
        metrics.ended_in += delivery.received
        metrics.ended_out += delivery.sent
        metrics.ended(code, seconds)
        if target.last_fault is not None and not delivery.connected_at and delivery.fault is target.last_fault.fault:
            self._on_fault(target.name, target.last_fault)
        if self._access_log is None:
            return
        line = _line(delivery.head, code)
        line |= {"bytes_in": delivery.sent, "bytes_out": delivery.received, "total_ms": round(seconds * 1e3, 3)}
        line["ended"] = who_ended(has_sender=delivery.has_stream_ended, has_target=delivery.has_edge_ended)
        if delivery.connected_at:
            line["connect_ms"] = round((delivery.connected_at - delivery.began) * 1e3, 3)
        if delivery.detail:
            line["detail"] = delivery.detail
        self._access_log.line(line)

    def _refuse(self, stream: StreamEnd, head: ConnectionHead | None, code: str) -> None:
        """To no target: another connector may have it."""
        stream.reset(FAULTS[code].wire, refused=True)
        self._metrics.refuse(code)
        if self._access_log is not None:
            self._access_log.line(_line(head, code))


def _line(head: ConnectionHead | None, code: str) -> dict[str, Any]:
    """The part of an access line that is known of every connection. `bytes_in` are those towards the target."""
    line: dict[str, Any] = {"time": timestamp(time.time()), "kind": "tcp"}
    if head is not None:
        line |= {
            "request_id": head.request_id, "attempt": head.attempt, "sender": head.sender, "route": head.route,
            "target": head.target,
        }  # fmt: skip
    if code:
        line |= {"code": code, "origin": FAULTS[code].origin.value}
    return line
