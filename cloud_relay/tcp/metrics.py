"""What is counted of TCP routes: plain numbers in slots, bound to routes before the first connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from shared.errors import FAULTS
from shared.metrics import Histogram, counter_family, gauge_family

if TYPE_CHECKING:
    from cloud_relay.tcp.push import TcpPush
    from shared.errors import Fault
    from shared.metric_cells import HistogramCell
    from shared.metrics import Metrics

_ROUTE: Final = ("tenant", "route")
LIFETIMES: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0)
"""Buckets, in seconds, for how long a connection lived: from a statsd line to a syslog sender's day."""


class TcpRouteMetrics:
    """The counters of one route, kept over reloads, changed in place. Bytes are of the senders' connections.

    `live` are the connections that are open: a scrape sees their bytes too, for they may live for days.
    """

    __slots__ = (
        "connections", "delivered", "ended_in", "ended_out", "failed_tries", "faults", "last_delivered", "live",
        "retries", "route", "seconds", "tenant",
    )  # fmt: skip

    def __init__(self, tenant: str, route: str, seconds: HistogramCell) -> None:
        self.tenant = tenant
        self.route = route
        self.seconds = seconds
        self.connections = self.delivered = self.ended_in = self.ended_out = self.retries = 0
        self.live: set[TcpPush] = set()
        self.last_delivered = 0.0
        self.faults: dict[str, int] = {}
        self.failed_tries: dict[tuple[str, str], int] = {}

    def try_failed(self, code: str, then: str) -> None:
        """Count a try before the target took the connection, by its fault and what came then."""
        key = (code, then)
        self.failed_tries[key] = self.failed_tries.get(key, 0) + 1

    @property
    def bytes_in(self) -> int:
        """Bytes that senders sent."""
        return self.ended_in + sum(one.received for one in self.live)

    @property
    def bytes_out(self) -> int:
        """Bytes that senders got."""
        return self.ended_out + sum(one.sent for one in self.live)

    def ended(self, fault: Fault | None, seconds: float) -> None:
        """Count a connection that ended: by `fault`, None for a good end of both directions, all bytes handed over."""
        self.seconds.observe(seconds)
        if fault is None:
            self.delivered += 1
        else:
            self.faults[fault.code] = self.faults.get(fault.code, 0) + 1


class TcpMetrics:
    """Those of all TCP routes."""

    def __init__(self, metrics: Metrics) -> None:
        self.routes: dict[tuple[str, str], TcpRouteMetrics] = {}
        self._seconds: Histogram = metrics.histogram(
            "qanat_relay_tcp_connection_seconds", "How long connections of TCP routes lived.", _ROUTE, LIFETIMES
        )

    def route(self, tenant: str, name: str) -> TcpRouteMetrics:
        """The route's counters; the same object whenever the same route is asked for."""
        key = (tenant, name)
        found = self.routes.get(key)
        if found is None:
            found = self.routes[key] = TcpRouteMetrics(tenant, name, self._seconds.labels(*key))
        return found

    def keep_only(self, routes: set[tuple[str, str]]) -> None:
        """Forget the counters of what the config no longer names."""
        for key in self.routes.keys() - routes:
            del self.routes[key]
            self._seconds.remove(*key)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client; the histogram is the registry's own."""
        routes = list(self.routes.items())
        for name, text, values in (
            ("connections", "Connections taken.", ((key, one.connections) for key, one in routes)),
            (
                "delivered",
                "Connections whose both directions ended well, with all bytes handed over.",
                ((key, one.delivered) for key, one in routes),
            ),
            ("bytes_in", "Bytes that senders sent.", ((key, one.bytes_in) for key, one in routes)),
            ("bytes_out", "Bytes that senders got.", ((key, one.bytes_out) for key, one in routes)),
            ("retries", "Further tries at another tunnel.", ((key, one.retries) for key, one in routes)),
        ):
            yield counter_family(f"qanat_relay_tcp_{name}", text, _ROUTE, values)
        yield counter_family(
            "qanat_relay_tcp_failed_tries", "Tries that no target took, by code, origin, and what came then.",
            (*_ROUTE, "code", "origin", "then"),
            (
                ((*key, code, FAULTS[code].origin.value, then), count)
                for key, one in routes for (code, then), count in list(one.failed_tries.items())
            ),
        )  # fmt: skip
        yield gauge_family(
            "qanat_relay_tcp_connections_open",
            "Connections open.",
            _ROUTE,
            ((key, len(one.live)) for key, one in routes),
        )
        yield counter_family(
            "qanat_relay_tcp_faults", "Connections refused or reset, by code and origin.", (*_ROUTE, "code", "origin"),
            (
                ((*key, code, FAULTS[code].origin.value), count)
                for key, one in routes for code, count in list(one.faults.items())
            ),
        )  # fmt: skip
