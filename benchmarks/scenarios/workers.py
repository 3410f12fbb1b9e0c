"""What more workers are good for: pushes a second where each process of the relay may take only a part of a core."""

from __future__ import annotations

from benchmarks.cpu_quota import limited
from benchmarks.procfs import read_shares
from benchmarks.scenarios.base import Bench, Figures, Scenario
from benchmarks.scenarios.small import small
from benchmarks.systems.base import Shape
from benchmarks.systems.qanat import metric

_SHARE = 0.2
_IN_FLIGHT = 64


def workers(bench: Bench) -> Figures:
    """As small-64. `crossed_share`: the part of the pushes that came to a worker without a tunnel for them."""
    relay = bench.running.roles["relay"]
    before = metric(bench.running, bench.site.cloud, "qanat_relay_pushes_crossed_total")
    with limited([*read_shares(relay.pid)], _SHARE):
        figures = small(_IN_FLIGHT)(bench)
    crossed = metric(bench.running, bench.site.cloud, "qanat_relay_pushes_crossed_total") - before
    pushes = figures["pushes_per_s"] * (bench.plan.seconds + bench.plan.warm_up)
    return figures | {"relay_core_share": _SHARE, "crossed_share": crossed / pushes}


def _workers(count: int) -> Scenario:
    about = f"as small-{_IN_FLIGHT}; the relay has {count} processes, each with at most {_SHARE:.0%} of a core"
    return Scenario(f"workers-{count}", about, workers, group="scale", systems=("qanat",), shape=Shape(workers=count))


SCENARIOS = (_workers(1), _workers(2), _workers(4))
