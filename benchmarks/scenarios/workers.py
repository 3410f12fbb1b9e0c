"""What more workers are good for: pushes a second where each process of the relay may take only a part of a core."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from benchmarks.cpu_quota import limited
from benchmarks.load.figures import Load
from benchmarks.load.wrk import run_wrk
from benchmarks.procfs import read_shares
from benchmarks.scenarios.base import Bench, Figures, Scenario, metered
from benchmarks.scenarios.small import PUSH_BYTES
from benchmarks.systems.base import Shape
from benchmarks.systems.qanat import metric

_SHARE = 0.2
_SENDERS, _CONNECTIONS = 16, 4
_APART_S = 0.03


def workers(bench: Bench) -> Figures:
    """16 senders that come one after the other, each with 4 connections and a push in flight on each.

    `crossed_share`: the part of the pushes that came to a worker without a tunnel for them.
    """
    relay = bench.running.roles["relay"]
    before = metric(bench.running, bench.site.cloud, "qanat_relay_pushes_crossed_total")
    with limited([*read_shares(relay.pid)], _SHARE):
        figures = metered(bench, lambda: _push(bench), push_bytes=PUSH_BYTES)
    crossed = metric(bench.running, bench.site.cloud, "qanat_relay_pushes_crossed_total") - before
    pushes = figures["pushes_per_s"] * bench.plan.seconds
    return figures | {"relay_core_share": _SHARE, "crossed_share": crossed / pushes}


def _push(bench: Bench) -> Load:
    """Connections that come at once may all be taken by one worker, and senders do not come at once."""
    door = bench.running.endpoint("push", is_tls=True)

    def run(number: int) -> Load:
        time.sleep(number * _APART_S)
        return run_wrk(bench.site, door, "/push", size=PUSH_BYTES, in_flight=_CONNECTIONS, seconds=bench.plan.seconds)

    with ThreadPoolExecutor(_SENDERS, thread_name_prefix="sender") as pool:
        return together(list(pool.map(run, range(_SENDERS))))


def together(loads: Sequence[Load]) -> Load:
    """Several loads at once as one; its percentiles are the means of theirs."""
    p50, p90, p99, p999 = map(
        fmean, zip(*((one.p50_ms, one.p90_ms, one.p99_ms, one.p999_ms) for one in loads), strict=True)
    )
    seconds, failed = fmean(one.seconds for one in loads), sum(one.failed for one in loads)
    return Load(seconds, sum(one.pushes for one in loads), failed, p50, p90, p99, p999)


def _workers(count: int) -> Scenario:
    about = (
        f"2 KiB pushes of {_SENDERS} senders; the relay has {count} processes, each with at most {_SHARE:.0%} of a core"
    )
    return Scenario(f"workers-{count}", about, workers, group="scale", systems=("qanat",), shape=Shape(workers=count))


SCENARIOS = (_workers(1), _workers(2), _workers(4))
