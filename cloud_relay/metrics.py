"""What the relay counts: plain numbers in slots, bound to routes and senders before the first push, read by a scrape.

Labels hold names of the config and codes of the catalogue only, never anything that came over the network.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.core import Metric

from cloud_relay.tcp.metrics import TcpMetrics
from cloud_relay.tunnel_metrics import TunnelMetrics
from shared.errors import FAULTS
from shared.metrics import CLASSES, Metrics, counter_family, gauge_family

if TYPE_CHECKING:
    from shared.errors import Fault
    from shared.metric_cells import HistogramCell
    from shared.metrics import Histogram

_ROUTE: Final = ("tenant", "route")
_SENDER: Final = ("tenant", "sender")


class RouteMetrics:
    """The counters of one route, kept over reloads.

    `in_flight`, `bytes_in` (body bytes from senders), `bytes_out` (body bytes to senders), `dropped_headers`, `retries`
    and `mended` (pushes that a further try brought an answer) are changed in place. `by_class[n]` counts answers of
    status n00 to n99, `by_class[0]` pushes without one.
    Of those pushes `accepted` were let in, past credentials and quotas, and `delivered` were taken by a target (2xx, or
    a WebSocket). `queued` gets the seconds that a push waited for its turn, if it had to. `ingress_seconds` adds up
    what passes from the end of a push's head to the opening of its stream: credentials, queue, hold, earlier tries.
    """

    __slots__ = (
        "_beyond", "_total", "_waited", "accepted", "by_class", "bytes_in", "bytes_out", "delivered",
        "dropped_headers", "failed_tries", "faults", "in_flight", "ingress_seconds", "mended", "queued", "retries",
        "route", "tenant",
    )  # fmt: skip

    def __init__(
        self,
        tenant: str,
        route: str,
        total: HistogramCell,
        waited: HistogramCell,
        beyond: HistogramCell,
        queued: HistogramCell,
    ) -> None:
        self.tenant = tenant
        self.route = route
        self.in_flight = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.dropped_headers = 0
        self.retries = 0
        self.accepted = 0
        self.delivered = 0
        self.ingress_seconds = 0.0
        self.queued = queued
        self.mended = 0
        self.failed_tries: dict[tuple[str, str], int] = {}
        self.by_class = [0] * len(CLASSES)
        self.faults: dict[str, int] = {}
        self._total = total
        self._waited = waited
        self._beyond = beyond

    def finished(self, status: int, fault: Fault | None, total: float, waited: float, beyond: float) -> None:
        """Count the end of a push.

        `status` is what the sender got, 0 when nothing; `fault` whose making it was, None for the target's own answer.
        In seconds: `total` from the end of the head to the end of the answer, `waited` for a connector to be there,
        `beyond` from the opening of the stream to the answer's status line (tunnel and target), negative when that
        never came.
        """
        self.by_class[status // 100 if 100 <= status < 600 else 0] += 1
        if fault is not None:
            code = fault.code
            self.faults[code] = self.faults.get(code, 0) + 1
        self._total.observe(total)
        if waited > 0.0:
            self._waited.observe(waited)
        if beyond >= 0.0:
            self._beyond.observe(beyond)

    def try_failed(self, code: str, then: str) -> None:
        """Count a try without an answer, by its fault and what came then; see `cloud_relay.ingress.retry`."""
        key = (code, then)
        self.failed_tries[key] = self.failed_tries.get(key, 0) + 1

    @property
    def pushes(self) -> int:
        """All pushes that have ended."""
        return sum(self.by_class)


class SenderMetrics:
    """The counters of one sender, kept over reloads: pushes that ended, those with a 2xx, and the Unix time of the last
    such, 0.0 before the first. `known_since` is the Unix time from which on they count; `expect_every` seconds, 0.0:
    nothing is expected of it."""

    __slots__ = ("delivered", "expect_every", "known_since", "last_delivered", "pushes", "sender", "tenant")

    def __init__(self, tenant: str, sender: str) -> None:
        self.tenant = tenant
        self.sender = sender
        self.pushes = 0
        self.delivered = 0
        self.last_delivered = 0.0
        self.known_since = time.time()
        self.expect_every = 0.0

    def silence(self, now: float) -> float:
        """Seconds since its last delivered push, or since it is known, at the Unix time `now`."""
        return max(now - max(self.last_delivered, self.known_since), 0.0)


class ListenerMetrics:
    """The counters of one ingress listener, by its configured address. The listener changes them in place.

    `faults` counts by code what was answered, or closed, before a route was known; `tls_failed` handshakes that broke
    off; `refused` connections beyond a cap.
    """

    __slots__ = ("accepted", "dropped_headers", "faults", "listener", "open", "refused", "requests", "tls_failed")

    def __init__(self, listener: str) -> None:
        self.listener = listener
        self.accepted = 0
        self.open = 0
        self.refused = 0
        self.requests = 0
        self.tls_failed = 0
        self.dropped_headers = 0
        self.faults: dict[str, int] = {}

    def failed(self, fault: Fault) -> None:
        """Count a request that ended before a route was known."""
        self.faults[fault.code] = self.faults.get(fault.code, 0) + 1


class TunnelCounts(Protocol):
    """What the tunnel listener counted since the start: handshakes refused by code, or ended without an answer."""

    accepted: int
    failed: int
    refused: dict[str, int]


class EnrolmentCounts(Protocol):
    """What came of those who wanted to join: by outcome, a few words of ours or a code of the catalogue."""

    counts: dict[str, int]


class GuardCounts(Protocol):
    """How often targets were announced that the connector's join token did not allow."""

    refused: int


class RelayMetrics(Metrics):
    """All metrics of the process: one object, kept over reloads; hands out the children that the hot path holds."""

    def __init__(self, process: bool = True) -> None:
        super().__init__(process)
        self.routes: dict[tuple[str, str], RouteMetrics] = {}
        self.senders: dict[tuple[str, str], SenderMetrics] = {}
        self.listeners: dict[str, ListenerMetrics] = {}
        self.tcp = TcpMetrics(self)
        self.connectors = TunnelMetrics()
        self.tunnels: TunnelCounts | None = None
        """Set by whoever makes the tunnel listener."""
        self.enrolment: EnrolmentCounts | None = None
        self.guard: GuardCounts | None = None
        """Likewise."""
        self.probes: Mapping[str, int] = {}
        """Probes by what they came to; set by whoever probes."""
        self.taken_out: Mapping[tuple[str, ...], int] = {}
        """By (tenant, location, connector, target): how often pushes had it passed over; likewise."""
        self._total = self.histogram(
            "qanat_relay_push_seconds", "From the end of a push's head to the end of its answer.", _ROUTE
        )
        self._waited = self.histogram(
            "qanat_relay_push_wait_seconds", "How long pushes waited for a connector, of those that had to.", _ROUTE
        )
        self._beyond = self.histogram(
            "qanat_relay_push_beyond_seconds", "From a stream's opening to the status line: tunnel and target.", _ROUTE
        )
        self._queued = self.histogram(
            "qanat_relay_push_queue_seconds", "How long pushes waited for their turn, of those that had to.", _ROUTE
        )

    def route(self, tenant: str, name: str) -> RouteMetrics:
        """The route's counters; the same object whenever the same route is asked for."""
        key = (tenant, name)
        metrics = self.routes.get(key)
        if metrics is None:
            histograms = (family.labels(*key) for family in self._histograms())
            metrics = self.routes[key] = RouteMetrics(tenant, name, *histograms)
        return metrics

    def sender(self, tenant: str, name: str) -> SenderMetrics:
        """The sender's counters; the same object whenever the same sender is asked for."""
        metrics = self.senders.get((tenant, name))
        if metrics is None:
            metrics = self.senders[tenant, name] = SenderMetrics(tenant, name)
        return metrics

    def listener(self, address: str) -> ListenerMetrics:
        """The counters of the listener configured as `address`."""
        metrics = self.listeners.get(address)
        if metrics is None:
            metrics = self.listeners[address] = ListenerMetrics(address)
        return metrics

    def keep_only(self, routes: set[tuple[str, str]], senders: set[tuple[str, str]]) -> None:
        """Forget the counters of what the config no longer names; what is in flight still holds its own."""
        for key in self.routes.keys() - routes:
            del self.routes[key]
            for family in self._histograms():
                family.remove(*key)
        for key in self.senders.keys() - senders:
            del self.senders[key]

    def _histograms(self) -> tuple[Histogram, Histogram, Histogram, Histogram]:
        return self._total, self._waited, self._beyond, self._queued

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        yield from super().collect()
        yield from self._of_routes()
        yield from self._of_senders()
        yield from self._of_listeners()
        yield from self._of_tunnels()
        yield from self._of_targets()
        yield from self.tcp.collect()
        yield from self.connectors.collect()

    def _of_routes(self) -> Iterator[Metric]:
        routes = list(self.routes.items())
        yield counter_family(
            "qanat_relay_pushes", "Pushes that ended, by the class of status that the sender got.", (*_ROUTE, "status"),
            (((*key, CLASSES[n]), count) for key, route in routes for n, count in enumerate(route.by_class) if count),
        )  # fmt: skip
        yield counter_family(
            "qanat_relay_push_faults", "Pushes that Qanat itself answered or ended, by code and origin.",
            (*_ROUTE, "code", "origin"),
            (((*key, *_fault(code)), n) for key, route in routes for code, n in list(route.faults.items())),
        )  # fmt: skip
        for name, text, values in (
            (
                "ingress_seconds",
                "From heads' ends to streams' openings, added up: credentials, queue, hold, earlier tries.",
                ((key, route.ingress_seconds) for key, route in routes),
            ),
            ("bytes_in", "Body bytes that senders sent.", ((key, route.bytes_in) for key, route in routes)),
            ("bytes_out", "Body bytes that senders got.", ((key, route.bytes_out) for key, route in routes)),
            ("retries", "Further tries at another tunnel.", ((key, route.retries) for key, route in routes)),
            ("mended", "Pushes that a further try got an answer.", ((key, route.mended) for key, route in routes)),
            ("dropped_headers", "Odd headers left out.", ((key, route.dropped_headers) for key, route in routes)),
        ):
            yield counter_family(f"qanat_relay_push_{name}", text, _ROUTE, values)

        yield counter_family(
            "qanat_relay_pushes_accepted", "Pushes that ended, of those let in, past credentials and quotas.", _ROUTE,
            ((key, route.accepted) for key, route in routes),
        )  # fmt: skip
        yield counter_family(
            "qanat_relay_pushes_delivered", "Accepted pushes that a target took: 2xx, or a WebSocket.", _ROUTE,
            ((key, route.delivered) for key, route in routes),
        )  # fmt: skip
        yield counter_family(
            "qanat_relay_push_failed_tries", "Tries without an answer, by code, origin, and what came then.",
            (*_ROUTE, "code", "origin", "then"),
            (((*key, *_fault(code), then), n)
             for key, route in routes for (code, then), n in list(route.failed_tries.items())),
        )  # fmt: skip
        yield gauge_family(
            "qanat_relay_pushes_in_flight", "Pushes under way.", _ROUTE, ((key, r.in_flight) for key, r in routes)
        )

    def _of_senders(self) -> Iterator[Metric]:
        senders = list(self.senders.items())
        yield counter_family(
            "qanat_relay_sender_pushes", "Pushes that ended.", _SENDER, ((key, one.pushes) for key, one in senders)
        )
        yield counter_family(
            "qanat_relay_sender_delivered",
            "Pushes that a target took.",
            _SENDER,
            ((key, s.delivered) for key, s in senders),
        )
        yield gauge_family(
            "qanat_relay_sender_last_delivered_timestamp_seconds", "When a target last took a push.", _SENDER,
            ((key, one.last_delivered) for key, one in senders if one.last_delivered),
        )  # fmt: skip

        now = time.time()
        yield gauge_family(
            "qanat_relay_sender_silence_seconds",
            "Since a target last took a push of it; since it is known here, where none did yet.", _SENDER,
            ((key, one.silence(now)) for key, one in senders),
        )  # fmt: skip
        yield gauge_family(
            "qanat_relay_sender_expect_every_seconds", "expect_every, of those senders that have it.", _SENDER,
            ((key, one.expect_every) for key, one in senders if one.expect_every),
        )  # fmt: skip

    def _of_listeners(self) -> Iterator[Metric]:
        listeners = [((name,), listener) for name, listener in self.listeners.items()]
        label = ("listener",)
        for name, text, values in (
            ("connections", "Sender connections accepted.", ((key, one.accepted) for key, one in listeners)),
            ("connections_refused", "Connections beyond a cap.", ((key, one.refused) for key, one in listeners)),
            ("tls_failures", "TLS handshakes that broke off.", ((key, one.tls_failed) for key, one in listeners)),
            ("requests", "Requests that were begun.", ((key, one.requests) for key, one in listeners)),
        ):
            yield counter_family(f"qanat_relay_ingress_{name}", text, label, values)
        yield gauge_family(
            "qanat_relay_ingress_connections_open",
            "Sender connections.",
            label,
            ((key, o.open) for key, o in listeners),
        )
        yield counter_family(
            "qanat_relay_ingress_faults", "Requests that ended before a route was known, by code and origin.",
            (*label, "code", "origin"),
            (((*key, *_fault(code)), count) for key, one in listeners for code, count in list(one.faults.items())),
        )  # fmt: skip

    def _of_targets(self) -> Iterator[Metric]:
        probes = [((result,), count) for result, count in list(self.probes.items())]
        yield counter_family("qanat_relay_probes", "Probes of targets, by what they came to.", ("result",), probes)
        yield counter_family(
            "qanat_relay_target_taken_out", "How often pushes kept failing there.",
            ("tenant", "location", "connector", "target"), list(self.taken_out.items()),
        )  # fmt: skip

    def _of_tunnels(self) -> Iterator[Metric]:
        counts = self.tunnels
        if counts is None:
            return
        yield counter_family("qanat_relay_tunnels_accepted", "Tunnels that came up.", (), [((), counts.accepted)])
        yield counter_family(
            "qanat_relay_tunnel_handshakes_failed", "Handshakes that broke off.", (), [((), counts.failed)]
        )
        refused = [((code,), count) for code, count in list(counts.refused.items())]
        yield counter_family("qanat_relay_tunnels_refused", "Handshakes refused, by code.", ("code",), refused)
        if self.enrolment is not None:
            outcomes = [((outcome,), count) for outcome, count in list(self.enrolment.counts.items())]
            yield counter_family(
                "qanat_relay_enrolments", "Those who wanted to join, by outcome.", ("outcome",), outcomes
            )
        if self.guard is not None:
            yield counter_family(
                "qanat_relay_targets_not_allowed", "Announcements of targets that a join token did not allow.", (),
                [((), self.guard.refused)],
            )  # fmt: skip


def _fault(code: str) -> tuple[str, str]:
    return code, FAULTS[code].origin.value
