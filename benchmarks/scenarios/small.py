"""Small pushes: 2 KiB over kept TLS connections, N of them in flight; closed loop by wrk, and one open loop."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, sender_headers
from benchmarks.load.wrk import run_wrk
from benchmarks.scenarios.base import WITHOUT_WORKERS, Bench, Figures, Scenario, metered

PUSH_BYTES = 2048
_STEADY_PER_S = 1000


def small(in_flight: int) -> Callable[[Bench], Figures]:
    """Closed loop with `in_flight` connections."""

    def measure(bench: Bench) -> Figures:
        endpoint = bench.running.endpoint("push", is_tls=True)

        def push(seconds: float) -> Figures:
            return metered(
                bench,
                lambda: run_wrk(bench.site, endpoint, "/push", size=PUSH_BYTES, in_flight=in_flight, seconds=seconds),
                push_bytes=PUSH_BYTES,
            )

        push(bench.plan.warm_up)
        return push(bench.plan.seconds)

    return measure


def steady(bench: Bench) -> Figures:
    """Open loop at a rate that every system keeps up with: what a sender waits, stalls included."""
    endpoint = bench.running.endpoint("push", is_tls=True)
    spec = Spec(
        endpoint.host,
        endpoint.port,
        endpoint.is_tls,
        "/push",
        pushes=round(_STEADY_PER_S * bench.plan.seconds),
        seconds=bench.plan.seconds,
        size=PUSH_BYTES,
        connections=32,
        headers=sender_headers(),
    )
    return metered(bench, lambda: run_openloop(bench.site, spec), push_bytes=PUSH_BYTES)


SCENARIOS = (
    Scenario("small-1", "2 KiB pushes, 1 in flight", small(1), systems=WITHOUT_WORKERS, is_quick=True),
    Scenario("small-16", "2 KiB pushes, 16 in flight", small(16), is_quick=True),
    Scenario("small-64", "2 KiB pushes, 64 in flight", small(64)),
    Scenario("small-256", "2 KiB pushes, 256 in flight", small(256), systems=WITHOUT_WORKERS),
    Scenario(
        "steady-1000", f"2 KiB pushes, {_STEADY_PER_S} due each second (open loop)", steady, systems=WITHOUT_WORKERS
    ),
)
