"""Small pushes beside a large one, and the burst at the top of the minute."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable

from benchmarks.load.bulk import Bulk
from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, sender_headers, start_bulk
from benchmarks.scenarios.base import PEERS, WITHOUT_WORKERS, Bench, Figures, Scenario, metered
from benchmarks.scenarios.small import PUSH_BYTES

_BESIDE_PER_S = 300
_GB = 1_000_000_000
_LEAD_S = 1.0  # the generator of bulk starts, and its body is on its way
_BURST = 4000
BURST_CONNECTIONS = 1000
"""Kept connections of a burst, all of them warm."""


def steady(bench: Bench, seconds: float, per_s: float) -> Spec:
    """Small pushes at a steady rate, by TLS."""
    endpoint = bench.running.endpoint("push", is_tls=True)
    return Spec(
        endpoint.host,
        endpoint.port,
        endpoint.is_tls,
        "/push",
        pushes=round(per_s * seconds),
        seconds=seconds,
        size=PUSH_BYTES,
        connections=32,
        headers=sender_headers(),
    )


def beside(body: int, per_s: float = _BESIDE_PER_S, stretch: float = 1.0) -> Callable[[Bench], Figures]:
    """The small pushes' latency while bodies of `body` bytes cross one after the other, against their latency without.

    `per_s` small pushes are due each second, for `stretch` times the plan's seconds. The figures are those of the small
    pushes beside the bulk, and the bulk's own MB/s; `p99_ratio` has a bar.
    """

    def measure(bench: Bench) -> Figures:
        seconds = bench.plan.seconds * stretch
        alone = run_openloop(bench.site, steady(bench, seconds, per_s))
        door = bench.running.endpoint("sink", is_tls=True)
        spec = Bulk(door.host, door.port, door.is_tls, "/sink", body, seconds + _LEAD_S + 1.0, headers=sender_headers())
        crossing = start_bulk(bench.site, spec)
        time.sleep(_LEAD_S)
        small = run_openloop(bench.site, steady(bench, seconds, per_s))
        was_beside = not crossing.done()
        bulk = crossing.result()
        return {
            "p50_ms": small.p50_ms,
            "p99_ms": small.p99_ms,
            "p999_ms": small.p999_ms,
            "alone_p50_ms": alone.p50_ms,
            "alone_p99_ms": alone.p99_ms,
            "p99_ratio": small.p99_ms / alone.p99_ms,
            "mb_per_s": body * bulk.pushes / bulk.seconds / 1e6,
            "failed": alone.failed + bulk.failed + small.failed + (0 if was_beside else 1),
        }

    return measure


def sink_count(bench: Bench) -> dict[str, int]:
    """What the counting target says has arrived."""
    port = bench.site.targets["sink"]

    def ask() -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts

    return bench.site.premises.call(ask)


def burst(*, is_tls: bool, renew: bool) -> Callable[[Bench], Figures]:
    """4,000 pushes within one second; `delivered` is counted at the target by their numbers."""

    def measure(bench: Bench) -> Figures:
        door = bench.running.endpoint("sink", is_tls=is_tls)
        before = sink_count(bench)
        spec = Spec(
            door.host,
            door.port,
            door.is_tls,
            f"/sink?id={before['pushes']}-%d",
            pushes=_BURST,
            seconds=1.0,
            size=PUSH_BYTES,
            connections=_BURST if renew else BURST_CONNECTIONS,
            renew=renew,
            headers=sender_headers(),
        )
        figures = metered(bench, lambda: run_openloop(bench.site, spec), push_bytes=PUSH_BYTES)
        figures["delivered"] = sink_count(bench)["ids"] - before["ids"]
        figures["lost"] = max(0.0, _BURST - figures["failed"] - figures["delivered"])
        return figures

    return measure


SCENARIOS = (
    Scenario(
        "small-beside-bulk",
        "2 KiB pushes while a 1 GB body crosses the same tunnel",
        beside(_GB),
        group="bulk",
        systems=PEERS,
        is_long=True,
        takes_s=6.0,
        spans=2.0,
    ),
    Scenario(
        "burst-4000-kept",
        "4,000 pushes within a second on 1,000 kept TLS connections",
        burst(is_tls=True, renew=False),
        group="burst",
        systems=WITHOUT_WORKERS,
        is_quick=True,
        takes_s=3.0,
        spans=0.0,
    ),
    Scenario(
        "burst-4000-new",
        "4,000 pushes within a second, each on a new plain connection",
        burst(is_tls=False, renew=True),
        group="burst",
        systems=WITHOUT_WORKERS,
        takes_s=3.0,
        spans=0.0,
    ),
    Scenario(
        "burst-4000-new-tls",
        "4,000 pushes within a second, each on a new TLS connection",
        burst(is_tls=True, renew=True),
        group="burst",
        takes_s=3.0,
        spans=0.0,
    ),
)
