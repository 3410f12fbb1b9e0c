"""Bulk: 1 MiB bodies, eight at once, to a target that reads each to its end."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.load.wrk import run_wrk
from benchmarks.scenarios.base import MIB, WITHOUT_WORKERS, Bench, Figures, Scenario, metered

_AT_ONCE = 8


def bulk(*, is_tls: bool) -> Callable[[Bench], Figures]:
    """Closed loop of large bodies."""

    def measure(bench: Bench) -> Figures:
        endpoint = bench.running.endpoint("sink", is_tls=is_tls)

        def push(seconds: float) -> Figures:
            return metered(
                bench,
                lambda: run_wrk(bench.site, endpoint, "/sink", size=MIB, in_flight=_AT_ONCE, seconds=seconds),
                push_bytes=MIB,
            )

        push(bench.plan.warm_up)
        return push(bench.plan.seconds)

    return measure


SCENARIOS = (
    Scenario("bulk-1mib", "1 MiB bodies, 8 at once, plain ingress", bulk(is_tls=False), group="bulk", is_quick=True),
    Scenario(
        "bulk-1mib-tls",
        "1 MiB bodies, 8 at once, TLS ingress",
        bulk(is_tls=True),
        group="bulk",
        systems=WITHOUT_WORKERS,
    ),
)
