"""What the connector counts: plain numbers in slots, bound to targets before the first push, read by a scrape.

Labels hold names of the config and codes of the catalogue only, never anything that came over the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from connector_agent.tcp.metrics import TcpMetrics
from connector_agent.tunnel_metrics import TunnelMetrics, origin_of
from shared.metrics import CLASSES, Metrics, counter_family, gauge_family

if TYPE_CHECKING:
    from shared.metric_cells import HistogramCell
    from shared.metrics import Histogram

_TARGET: Final = ("target",)

SPEAKS_AGAINST: Final = frozenset({
    "deadline-exceeded", "target-address-refused", "target-credential-refused", "target-idle", "target-lost",
    "target-malformed-answer", "target-tls-failed", "target-too-slow", "target-unreachable",
})  # fmt: skip
"""Codes by which a push without an answer says that its target is not well. A refusal by the target's policy, or a
sender that left, says nothing of it."""


class TargetMetrics:
    """The counters of one target, kept over reloads.

    All are changed in place. `bytes_in` are body bytes of pushes, `bytes_out` of answers. `by_class[n]` counts the
    target's answers of status n00 to n99, `by_class[0]` pushes without one; `faults` our own errors by code.
    `connection_wait` gets the seconds that a push waited for a connection to the target, if it had to; `answering`
    those from when the target had been given what there was of the push, or its end, to the answer's first byte.
    `last_*` tell of the last push that ended; `last_at` is a Unix time, 0.0 before the first. `told_at` is that of the
    last one that said something about the target, `is_failing` what it said.
    """

    __slots__ = (
        "answering", "by_class", "bytes_in", "bytes_out", "connect_failures", "connection_wait", "connects",
        "dropped_headers", "dropped_interims", "faults", "in_flight", "is_failing", "last_at", "last_code",
        "last_status", "target", "told_at", "total",
    )  # fmt: skip

    def __init__(
        self, target: str, total: HistogramCell, connection_wait: HistogramCell, answering: HistogramCell
    ) -> None:
        self.target = target
        self.total = total
        self.connection_wait = connection_wait
        self.answering = answering
        self.by_class = [0] * len(CLASSES)
        self.faults: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.connects = 0
        self.connect_failures = 0
        self.dropped_headers = 0
        self.dropped_interims = 0
        self.in_flight = 0
        self.last_at = 0.0
        self.last_status = 0
        self.last_code = ""
        self.told_at = 0.0
        self.is_failing = False

    def finished(self, status: int, code: str, seconds: float, at: float) -> None:
        """Count the end of a push: the target's status or 0, our error's code or "", how long it took, and when."""
        self.by_class[status // 100 if 100 <= status < 600 else 0] += 1
        if code:
            self.faults[code] = self.faults.get(code, 0) + 1
        self.total.observe(seconds)
        self.last_at = at
        self.last_status = status
        self.last_code = code
        if status or code in SPEAKS_AGAINST:
            self.told_at = at
            self.is_failing = not status

    @property
    def pushes(self) -> int:
        """All pushes that have ended."""
        return sum(self.by_class)


class ConnectorMetrics(Metrics):
    """All metrics of the process: one object, kept over reloads; hands out the children that the hot path holds."""

    def __init__(self, process: bool = True) -> None:
        super().__init__(process)
        self.targets: dict[str, TargetMetrics] = {}
        self.refused: dict[str, int] = {}
        """Pushes for no target of ours, by code."""
        self.renewals: Callable[[], Mapping[str, int]] = dict
        """Tries to renew the certificate, by what they came to."""
        self.tcp = TcpMetrics(self)
        self.tunnels = TunnelMetrics()
        self._total = self.histogram(
            "qanat_connector_push_seconds", "From a push's arrival out of the tunnel to the end of its answer.", _TARGET
        )
        self._connection_wait = self.histogram(
            "qanat_connector_push_connection_wait_seconds",
            "How long pushes waited for a connection to the target, of those that had to.", _TARGET,
        )  # fmt: skip
        self._answering = self.histogram(
            "qanat_connector_push_target_seconds",
            "The target's own time: from when it was given the push to the first byte of its answer.", _TARGET,
        )  # fmt: skip

    def target(self, name: str) -> TargetMetrics:
        """The target's counters; the same object whenever the same target is asked for."""
        metrics = self.targets.get(name)
        if metrics is None:
            histograms = (family.labels(name) for family in self._histograms())
            metrics = self.targets[name] = TargetMetrics(name, *histograms)
        return metrics

    def refuse(self, code: str) -> None:
        """Count a push that got to no target."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def keep_only(self, targets: set[str]) -> None:
        """Forget the counters of what the config no longer names; what is in flight still holds its own."""
        for name in self.targets.keys() - targets:
            del self.targets[name]
            for family in self._histograms():
                family.remove(name)

    def _histograms(self) -> tuple[Histogram, Histogram, Histogram]:
        return self._total, self._connection_wait, self._answering

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        yield from super().collect()
        targets = list(self.targets.items())
        yield counter_family(
            "qanat_connector_pushes", "Pushes that ended, by the class of the target's status.", ("target", "status"),
            (((name, CLASSES[n]), count) for name, one in targets for n, count in enumerate(one.by_class) if count),
        )  # fmt: skip
        yield counter_family(
            "qanat_connector_push_faults", "Pushes that the connector ended itself, by code and origin.",
            ("target", "code", "origin"),
            (((name, code, origin_of(code)), n) for name, one in targets for code, n in list(one.faults.items())),
        )  # fmt: skip
        yield counter_family(
            "qanat_connector_renewals", "Tries to renew the certificate, by what they came to.", ("result",),
            (((result,), n) for result, n in list(self.renewals().items())),
        )  # fmt: skip
        yield counter_family(
            "qanat_connector_pushes_refused", "Pushes for no target of this connector, by code.", ("code",),
            (((code,), n) for code, n in list(self.refused.items())),
        )  # fmt: skip
        for name, text, values in (
            ("push_bytes_in", "Body bytes of pushes.", (((name,), one.bytes_in) for name, one in targets)),
            ("push_bytes_out", "Body bytes of answers.", (((name,), one.bytes_out) for name, one in targets)),
            ("connects", "Connections tried to the target.", (((name,), one.connects) for name, one in targets)),
            (
                "connect_failures", "Connections to the target that failed.",
                (((name,), one.connect_failures) for name, one in targets),
            ),
            ("dropped_headers", "Odd headers left out.", (((name,), one.dropped_headers) for name, one in targets)),
            ("dropped_interims", "1xx answers left out.", (((name,), one.dropped_interims) for name, one in targets)),
        ):  # fmt: skip
            yield counter_family(f"qanat_connector_{name}", text, _TARGET, values)
        yield gauge_family(
            "qanat_connector_pushes_in_flight", "Pushes under way.", _TARGET,
            (((name,), one.in_flight) for name, one in targets),
        )  # fmt: skip
        yield gauge_family(
            "qanat_connector_last_push_timestamp_seconds", "When the last push ended.", _TARGET,
            (((name,), one.last_at) for name, one in targets if one.last_at),
        )  # fmt: skip
        yield from self.tcp.collect()
        yield from self.tunnels.collect()
