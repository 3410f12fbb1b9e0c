"""Thousands of idle tunnels: memory of each, CPU of all, and what they do to the pushes of somebody else."""

from __future__ import annotations

import sys
import time

from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, sender_headers
from benchmarks.procfs import read_cost, read_rss_mib
from benchmarks.programs import ROOT
from benchmarks.scenarios.base import Bench, Figures, Scenario
from benchmarks.scenarios.small import PUSH_BYTES
from benchmarks.side import wait_for_file
from benchmarks.systems.base import Shape

_TUNNELS = 10_000
_IDENTITIES = 20
_SETTLE_S = 3.0
_OPEN_S = 300.0
_PER_S = 500


def idle_tunnels(bench: Bench) -> Figures:
    """Opens the tunnels, lets them be, and pushes through another connector's meanwhile.

    `kib_per_tunnel` is the relay's growth by tunnel; `idle_cpu_share` its CPU seconds a second while nothing is pushed.
    The latencies are those of pushes beside the idle tunnels: a pause of the garbage collector shows as a p99.9.
    """
    relay = bench.running.roles["relay"]
    before_mib, before = read_rss_mib(relay.pid), read_cost([relay.pid])
    ready = bench.site.folder / "tunnels.ready"
    ready.unlink(missing_ok=True)
    began = time.monotonic()
    details = bench.running.details
    argv = [sys.executable, "-m", "benchmarks.load.tunnels", str(ready), details["pki"], bench.site.cloud.address]
    argv += [details["tunnel_port"], str(_TUNNELS), *details["identities"].split()]
    client = bench.site.start(bench.site.premises, argv, "tunnels", {"PYTHONPATH": str(ROOT)})
    try:
        wait_for_file(ready, client, _OPEN_S)
        opened = time.monotonic()
        handshakes = read_cost([relay.pid]).cpu_s - before.cpu_s
        time.sleep(_SETTLE_S)
        grown = read_rss_mib(relay.pid) - before_mib
        idle = read_cost([relay.pid])
        time.sleep(2 * bench.plan.seconds)
        idle_share = (read_cost([relay.pid]).cpu_s - idle.cpu_s) / (2 * bench.plan.seconds)
        load = run_openloop(bench.site, _beside(bench))
    finally:
        bench.site.end(client)
    return {
        "kib_per_tunnel": grown * 1024 / _TUNNELS,
        "idle_cpu_share": idle_share,
        "open_s": opened - began,
        "cpu_ms_per_handshake": handshakes * 1e3 / _TUNNELS,
        "rss_mib": grown + before_mib,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "p999_ms": load.p999_ms,
        "failed": load.failed,
    }


def _beside(bench: Bench) -> Spec:
    door = bench.running.endpoint("push", is_tls=True)
    seconds = bench.plan.seconds
    return Spec(
        door.host, door.port, door.is_tls, "/push", round(_PER_S * seconds), seconds,
        size=PUSH_BYTES, connections=16, headers=sender_headers(),
    )  # fmt: skip


SCENARIOS = (
    Scenario(
        "idle-tunnels",
        f"{_TUNNELS:,} idle tunnels of {_IDENTITIES} connectors, and {_PER_S} pushes a second through another's",
        idle_tunnels,
        systems=("qanat",),
        shape=Shape(idle_connectors=_IDENTITIES),
    ),
)
