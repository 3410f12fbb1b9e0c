"""Much of something: readers that stall, routes and senders."""

from __future__ import annotations

import time

from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, sender_headers, start_openloop
from benchmarks.scenarios.base import MIB, Bench, Figures, Scenario, memory_of
from benchmarks.scenarios.small import PUSH_BYTES, small
from benchmarks.systems.base import Shape

_STALLED = 1000
_STALLED_BYTES = MIB // 2
_BESIDE_PER_S = 200


def stalled_readers(bench: Bench) -> Figures:
    """1,000 pushes of 512 KiB to a target that reads none of them, and small pushes to another one meanwhile.

    What becomes of the stalled ones is not judged here, only what they cost: memory, and the others' latency.
    """
    before = memory_of(bench.running)
    door = bench.running.endpoint("sink", is_tls=False)
    seconds = bench.plan.seconds
    stalled = start_openloop(
        bench.site,
        Spec(
            door.host, door.port, door.is_tls, "/sink/stall", _STALLED, 1.0,
            size=_STALLED_BYTES, connections=_STALLED, renew=True, timeout=seconds + 3.0, headers=sender_headers(),
        ),
    )  # fmt: skip
    time.sleep(2.5)
    push = bench.running.endpoint("push", is_tls=True)
    others = run_openloop(
        bench.site,
        Spec(
            push.host, push.port, push.is_tls, "/push", round(_BESIDE_PER_S * seconds), seconds,
            size=PUSH_BYTES, connections=16, headers=sender_headers(),
        ),
    )  # fmt: skip
    figures: Figures = {
        "p50_ms": others.p50_ms,
        "p99_ms": others.p99_ms,
        "failed": others.failed,
        "pushes_per_s": others.pushes / others.seconds,
    }
    figures |= memory_of(bench.running)
    figures |= {f"before_{name}": value for name, value in before.items() if name.endswith("_rss_mib")}
    ended = stalled.result()
    figures["stalled_unanswered"] = ended.failures.get("unanswered", 0)
    return figures


def _scale(name: str, shape: Shape) -> Scenario:
    about = f"as small-16, with {shape.routes:,} routes and {shape.senders:,} senders in the config"
    return Scenario(name, about, small(16), group="scale", systems=("qanat",), shape=shape)


SCENARIOS = (
    Scenario(
        "stalled-readers",
        "2 KiB pushes beside 1,000 pushes whose target never reads",
        stalled_readers,
        group="tunnels",
        systems=("qanat", "nginx+ssh-R"),
        is_long=True,
        takes_s=12.0,
    ),
    _scale("scale-1", Shape()),
    _scale("scale-10", Shape(routes=10, senders=10)),
    _scale("scale-100", Shape(routes=100, senders=100)),
    _scale("scale-1000", Shape(routes=1000, senders=1000)),
)
