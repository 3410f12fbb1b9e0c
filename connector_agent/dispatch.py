"""What the tunnels hand over: each push is read, matched with a target, and becomes a delivery.

The relay is not trusted: it may be in other hands. A push is a name of a target, a method, a path and headers, each
judged by this side's own config; there is nothing else that it could ask for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from connector_agent.delivery import Delivery
from connector_agent.plan import describe_kind, plan_for
from connector_agent.tcp.service import TcpService
from shared.access_log import timestamp
from shared.errors import FAULTS
from shared.http.push_head import HeadError, PushHead, TemplateMemo, decode_varying
from shared.logs import LogLimiter
from shared.probe import MARK as PROBE_MARK
from shared.tcp.head import MARK
from shared.timers import precise_clock

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from connector_agent.metrics import ConnectorMetrics
    from connector_agent.targets import Target, TargetTable
    from shared.protocol import StreamEnd
    from shared.tunnel.gaps import GapWatch


REFUSALS_BURST: Final = 100
REFUSALS_RATE: Final = 5.0
"""Lines of pushes that were refused for what they are, for each code: so many at once, then so many a second."""

_LINE: Final = (
    '{"time":"%s","request_id":"%s","attempt":%s,%s,"status":%s,"bytes_in":%s,"bytes_out":%s,"total_ms":%.3f,'
    '"first_byte_ms":%.3f,"reused":%s}\n'
)
"""One call makes a line of it, compiled or not; mypyc makes a call for every number of an f-string."""


class LineWriter(Protocol):
    """Where access lines go."""

    def line(self, record: Mapping[str, Any]) -> None:
        """Queue one record."""

    def text(self, line: bytes) -> None:
        """Queue one that is JSON already, its newline included."""


class StreamTaker(Protocol):
    """Who takes streams of a kind of its own."""

    def on_stream(self, stream: StreamEnd, head: bytes, body: bytes, end: bool) -> None:
        """See Dispatcher."""


class Dispatcher:
    """Takes streams from every tunnel of the process. `in_flight` counts deliveries that are not over.

    `look(now)` is GapWatch's: after a gap of the loop no push that waited is written. `now()` is the loop's time,
    but finer than uvloop's own, which counts milliseconds: durations and deadlines are judged by it.
    """

    __slots__ = (
        "_access_log", "_metrics", "_probes", "_refusals", "_targets", "_tcp", "_templates", "_under_way", "is_closed",
        "look", "now",
    )  # fmt: skip

    def __init__(
        self,
        targets: TargetTable,
        loop: AbstractEventLoop,
        metrics: ConnectorMetrics,
        access_log: LineWriter | None,
        gaps: GapWatch,
        tcp: TcpService | None = None,
        probes: StreamTaker | None = None,
    ) -> None:
        """`tcp` takes what is no HTTP, `probes` the questions how a target is; None: there is none."""
        self._targets = targets
        self._tcp = tcp or TcpService((), loop, precise_clock(loop), metrics, access_log, lambda _name, _fault: None)
        self._probes = probes
        self._templates = TemplateMemo()
        self.now = precise_clock(loop)
        self._metrics = metrics
        self._access_log = access_log
        self._refusals = LogLimiter(REFUSALS_RATE, REFUSALS_BURST, clock=self.now)
        self._under_way: set[Delivery] = set()
        self.is_closed = False
        self.look = gaps.look
        gaps.add(self._on_gap)

    @property
    def in_flight(self) -> int:
        """Pushes that are not over."""
        return len(self._under_way) + self._tcp.in_flight

    def on_stream(self, stream: StreamEnd, head: bytes, body: bytes, end: bool) -> None:
        """A push, with the first or all of its body."""
        try:
            request_id, attempt, length, rest = decode_varying(head)
            template = self._templates.read(rest)
        except HeadError as error:
            if head.startswith(MARK):  # looked at only here, so that it costs a push nothing
                self._tcp.on_stream(stream, head, body, end)
                return
            if self._probes is not None and head.startswith(PROBE_MARK):
                self._probes.on_stream(stream, head, body, end)
                return
            self._refuse(stream, None, error.fault.code, body)
            return
        push = template.push(request_id, attempt, length)
        target = self._targets.get(push.target)
        if target is None:
            self._refuse(stream, push, "unknown-target", body)
            return
        if self.is_closed:
            self._refuse(stream, push, "connector-draining", body)
            return
        delivery = Delivery(stream, push, plan_for(template, target), target, self)
        stream.handler = delivery
        target.metrics.in_flight += 1
        self._under_way.add(delivery)
        delivery.start(body, end)

    def judge(self, push: PushHead, target: Target) -> str | None:
        """See Recorder."""
        successor = self._targets.get(push.target)
        if successor is target:
            return None
        if successor is None or not successor.upgrades:
            return "unknown-target"
        if not successor.pool.endpoint.is_same_place(target.pool.endpoint):
            return "unknown-target"
        return successor.access.check(push.method, push.path)

    def recheck(self) -> None:
        """After the targets were replaced: end the WebSockets that they would not take any more."""
        for delivery in tuple(self._under_way):
            delivery.recheck()

    def record(self, delivery: Delivery, now: float) -> None:
        """A delivery is over: count it, and write its access line."""
        self._under_way.discard(delivery)
        target = delivery.target
        metrics = target.metrics
        seconds = now - delivery.started_at
        at = time.time()
        metrics.in_flight -= 1
        metrics.bytes_in += delivery.received
        metrics.bytes_out += delivery.sent
        # A WebSocket's hours are no push's time to its answer.
        took = seconds if delivery.status != 101 else delivery.first_byte_at - delivery.started_at
        metrics.finished(delivery.status, delivery.code, took, at)
        if delivery.first_byte_at:
            metrics.answering.observe(delivery.first_byte_at - min(delivery.given_at, delivery.first_byte_at))
        if delivery.waited:
            metrics.connection_wait.observe(delivery.waited)
        if self._access_log is None:
            return
        if not delivery.code:
            push = delivery.push
            first = (delivery.first_byte_at - delivery.started_at) * 1e3
            text = _LINE % (
                timestamp(at), push.request_id, push.attempt, delivery.plan.described, delivery.status,
                delivery.received, delivery.sent, seconds * 1e3, first, "true" if delivery.was_reused else "false",
            )  # fmt: skip
            self._access_log.text(text.encode())
        else:
            line = _line(delivery.push, at, delivery.status, delivery.code)
            line["bytes_in"] = delivery.received
            line["bytes_out"] = delivery.sent
            line["total_ms"] = round(seconds * 1e3, 3)
            if delivery.first_byte_at:
                line["first_byte_ms"] = round((delivery.first_byte_at - delivery.started_at) * 1e3, 3)
            line["reused"] = delivery.was_reused
            if delivery.detail:
                line["detail"] = delivery.detail
            if delivery.plan.code:
                self._tell_refusal(self._access_log, delivery.code, line)
            else:
                self._access_log.line(line)

    def forget(self) -> None:
        """Remember nothing of pushes that are over: their plans hold targets, secrets and passed credentials."""
        self._templates = TemplateMemo()

    def abort(self, code: str) -> None:
        """Give up all that is under way, and take no more. What went to a target is lost, whatever the code."""
        self.is_closed = True
        for delivery in tuple(self._under_way):
            delivery.abort("target-lost" if delivery.was_written else code)
        self._tcp.abort(code)

    def _on_gap(self, _now: float) -> None:
        for delivery in tuple(self._under_way):
            delivery.on_gap()
        self._tcp.on_gap()

    def _refuse(self, stream: StreamEnd, push: PushHead | None, code: str, body: bytes) -> None:
        """To no target: another connector may have it."""
        stream.consumed(len(body))
        stream.reset(FAULTS[code].wire, refused=True)
        self._metrics.refuse(code)
        if self._access_log is not None:
            self._tell_refusal(self._access_log, code, _line(push, time.time(), 0, code))

    def _tell_refusal(self, access_log: LineWriter, code: str, line: dict[str, Any]) -> None:
        """Write the line of a push that no target may have, unless there were too many: the relay makes them up."""
        held = self._refusals.admit(code)
        if held is not None:
            if held:
                line["suppressed"] = held
            access_log.line(line)


def _line(push: PushHead | None, at: float, status: int, code: str) -> dict[str, Any]:
    """The part of an access line that is known of every push; none of it is a header's value or a query."""
    line: dict[str, Any] = {"time": timestamp(at)}
    if push is not None:
        line["request_id"] = push.request_id
        line["attempt"] = push.attempt
        line |= describe_kind(push)
    line["status"] = status
    if code:
        line["code"] = code
        line["origin"] = FAULTS[code].origin.value if code in FAULTS else ""
    return line
