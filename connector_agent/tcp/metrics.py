"""What is counted of tcp targets: plain numbers in slots, bound to targets before the first connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from connector_agent.tunnel_metrics import origin_of
from shared.metrics import Histogram, counter_family, gauge_family

if TYPE_CHECKING:
    from connector_agent.tcp.delivery import TcpDelivery
    from shared.metric_cells import HistogramCell
    from shared.metrics import Metrics

_TARGET: Final = ("target",)
LIFETIMES: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0)
"""Buckets, in seconds, for how long a connection lived."""


class TcpTargetMetrics:
    """The counters of one target, kept over reloads, changed in place.

    `live` are the connections that are open: a scrape sees their bytes too, for they may live for days. `in` is towards
    the sender's side, as the edge reads it; `bytes_in` and `bytes_out` are as everywhere: of pushes, and of answers.
    """

    __slots__ = ("connect_failures", "connections", "connects", "delivered", "ended_in", "ended_out", "faults", "live",
                 "seconds", "target")  # fmt: skip

    def __init__(self, target: str, seconds: HistogramCell) -> None:
        self.target = target
        self.seconds = seconds
        self.delivered = self.connections = self.connects = self.connect_failures = self.ended_in = self.ended_out = 0
        self.faults: dict[str, int] = {}
        self.live: set[TcpDelivery] = set()

    @property
    def bytes_in(self) -> int:
        """Bytes that the target got."""
        return self.ended_out + sum(one.sent for one in self.live)

    @property
    def bytes_out(self) -> int:
        """Bytes that the target sent."""
        return self.ended_in + sum(one.received for one in self.live)

    def ended(self, code: str, seconds: float) -> None:
        """Count a connection that ended: by a code, "" for a good end of both directions, all bytes handed over."""
        self.seconds.observe(seconds)
        if not code:
            self.delivered += 1
        else:
            self.faults[code] = self.faults.get(code, 0) + 1


class TcpMetrics:
    """Those of all tcp targets."""

    def __init__(self, metrics: Metrics) -> None:
        self.targets: dict[str, TcpTargetMetrics] = {}
        self._seconds: Histogram = metrics.histogram(
            "qanat_connector_tcp_connection_seconds", "How long connections to the target lived.", _TARGET, LIFETIMES
        )

    def target(self, name: str) -> TcpTargetMetrics:
        """The target's counters; the same object whenever the same target is asked for."""
        found = self.targets.get(name)
        if found is None:
            found = self.targets[name] = TcpTargetMetrics(name, self._seconds.labels(name))
        return found

    def keep_only(self, targets: set[str]) -> None:
        """Forget the counters of what the config no longer names."""
        for name in self.targets.keys() - targets:
            del self.targets[name]
            self._seconds.remove(name)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client; the histogram is the registry's own."""
        targets = list(self.targets.items())
        for name, text, values in (
            ("connections", "Connections taken from the tunnel.", (((n,), one.connections) for n, one in targets)),
            (
                "delivered",
                "Connections whose both directions ended well, with all bytes handed over.",
                (((n,), one.delivered) for n, one in targets),
            ),
            ("connects", "Connections tried to the target.", (((n,), one.connects) for n, one in targets)),
            (
                "connect_failures",
                "Connections to the target that failed.",
                (((n,), one.connect_failures) for n, one in targets),
            ),
            ("bytes_in", "Bytes that the target got.", (((n,), one.bytes_in) for n, one in targets)),
            ("bytes_out", "Bytes that the target sent.", (((n,), one.bytes_out) for n, one in targets)),
        ):
            yield counter_family(f"qanat_connector_tcp_{name}", text, _TARGET, values)
        yield gauge_family(
            "qanat_connector_tcp_connections_open", "Connections open.", _TARGET,
            (((n,), len(one.live)) for n, one in targets),
        )  # fmt: skip
        yield counter_family(
            "qanat_connector_tcp_faults", "Connections refused or reset, by code and origin.",
            ("target", "code", "origin"),
            (((n, code, origin_of(code)), count) for n, one in targets for code, count in list(one.faults.items())),
        )  # fmt: skip
