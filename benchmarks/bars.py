"""The bars that Qanat sets itself, and how far a report clears them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Report

BUDGET_MIB = 256.0
"""The relay's `memory.budget`: its default."""

_TUNNELS_PER_S = 300.0
_ALL = 10_000

Value = Callable[[Report, str], float | None]
"""The figure of one of our systems; None where it, or the peer, was not measured."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. `value` must be at most `limit`, or at least that."""

    what: str
    value: Value
    limit: float
    is_least: bool = False
    unit: str = ""

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit

    @property
    def wanted(self) -> str:
        """The bar in short: `≤ 0.75`."""
        if not self.limit:
            return "none"
        return f"{'≥' if self.is_least else '≤'} {self.limit:g}{self.unit}"


def figure(scenario: str, name: str) -> Value:
    """A figure as it is."""

    def value(report: Report, system: str) -> float | None:
        found = report.find(scenario, system)
        return found.median.get(name) if found is not None else None

    return value


def ratio(scenario: str, name: str, peer: str) -> Value:
    """A figure of ours by that of a peer in the same scenario."""

    def value(report: Report, system: str) -> float | None:
        return report.ratio(scenario, name, system, peer)

    return value


def undelivered(scenario: str) -> Value:
    """Pushes that failed or did not arrive."""
    failed, lost = figure(scenario, "failed"), figure(scenario, "lost")

    def value(report: Report, system: str) -> float | None:
        counts = failed(report, system), lost(report, system)
        return None if counts[0] is None or counts[1] is None else counts[0] + counts[1]

    return value


def grown(scenario: str) -> Value:
    """MiB by which the relay is larger than before."""
    now, before = figure(scenario, "relay_rss_mib"), figure(scenario, "before_relay_rss_mib")

    def value(report: Report, system: str) -> float | None:
        sizes = now(report, system), before(report, system)
        return None if sizes[0] is None or sizes[1] is None else sizes[0] - sizes[1]

    return value


_SSH, _CHISEL = "nginx+ssh-R", "nginx+chisel"

BARS = (
    Bar("CPU per 2 KiB push, 16 in flight ÷ nginx + `ssh -R`", ratio("small-16", "cpu_us_per_push", _SSH), 1.0),
    Bar("… ÷ nginx + chisel", ratio("small-16", "cpu_us_per_push", _CHISEL), 0.75),
    Bar(
        "pushes per second, 16 in flight ÷ nginx + `ssh -R`",
        ratio("small-16", "pushes_per_s", _SSH),
        1.0,
        is_least=True,
    ),
    Bar("… ÷ nginx + chisel", ratio("small-16", "pushes_per_s", _CHISEL), 1.3, is_least=True),
    Bar("latency added, one push at a time, p50 ÷ nginx + chisel", ratio("small-1", "added_p50_ms", _CHISEL), 1.0),
    Bar("1 MiB bodies, 8 at once: MB/s ÷ nginx + `ssh -R`", ratio("bulk-1mib", "mb_per_s", _SSH), 1.0, is_least=True),
    Bar("… MB per CPU second ÷ nginx + `ssh -R`", ratio("bulk-1mib", "mb_per_cpu_s", _SSH), 1.0, is_least=True),
    Bar("… MB/s ÷ nginx + chisel", ratio("bulk-1mib", "mb_per_s", _CHISEL), 1.5, is_least=True),
    Bar("… MB per CPU second ÷ nginx + chisel", ratio("bulk-1mib", "mb_per_cpu_s", _CHISEL), 1.5, is_least=True),
    Bar(
        "64 MiB over 100 ms at 1 Gbit/s: MB/s ÷ plain TCP", ratio("long-fat", "mb_per_s", "direct"), 0.8, is_least=True
    ),
    Bar("2 KiB pushes beside a 1 GB body: p99 ÷ p99 alone", figure("small-beside-bulk", "p99_ratio"), 5.0),
    Bar("… at 10 Mbit/s and 50 ms: p99 in round trips", figure("slow-link", "p99_round_trips"), 10.0),
    Bar("memory per idle tunnel, fresh", figure("idle-tunnels", "kib_per_tunnel"), 64.0, unit=" KiB"),
    Bar("… after 1 MiB each way", figure("tunnels-used", "used_kib_per_tunnel"), 192.0, unit=" KiB"),
    Bar("memory for 1,000 stalled readers, within the budget", grown("stalled-readers"), BUDGET_MIB, unit=" MiB"),
    Bar("4,000 pushes in a second, kept connections: lost or refused", undelivered("burst-4000-kept"), 0.0),
    Bar("… on new connections", undelivered("burst-4000-new"), 0.0),
    Bar("… on new TLS connections", undelivered("burst-4000-new-tls"), 0.0),
    Bar(
        "flowing again after the relay was killed, 300 connectors", figure("reconnect-300", "flowing_s"), 1.0, unit=" s"
    ),
    Bar("… all 10,000 are back", figure("mass-reconnect", "back_100_s"), round(_ALL / _TUNNELS_PER_S, 1), unit=" s"),
)
