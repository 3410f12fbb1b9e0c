"""Thousands of tunnels: what each takes, what all of them cost, and how they come back after the relay was killed."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.crowd import crowd
from benchmarks.gc_watch import Pause, read_pauses
from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, sender_headers, start_openloop
from benchmarks.load.wrk import run_wrk
from benchmarks.procfs import read_cost, read_rss_mib
from benchmarks.programs import BenchmarkError
from benchmarks.scenarios.base import MIB, Bench, Figures, Scenario, metered
from benchmarks.scenarios.mixed import steady
from benchmarks.scenarios.small import PUSH_BYTES
from benchmarks.systems.base import Shape
from benchmarks.systems.qanat_config import CROWD

_IDLE, _EACH = 10_000, 20
_USED = 1000
_SETTLE_S = 3.0
_BESIDE_PER_S = 500
_BACK_PER_S = 200
_BACK_S = 240.0  # the advised spread is 34 s for ten thousand; a busy machine takes longer


def idle_tunnels(bench: Bench) -> Figures:
    """Opens the tunnels, lets them be, and pushes through another connector's meanwhile.

    `kib_per_tunnel` is the relay's growth by tunnel; `idle_cpu_share` its CPU seconds a second while nothing is pushed.
    The latencies are those of pushes beside the idle tunnels. `gc_…`: the garbage collector's pauses by what went on at
    the time, and a full collection that was asked for, which is the longest pause that there could be.
    """
    relay, began = bench.running.roles["relay"], time.monotonic()
    before_mib, before = read_rss_mib(relay.pid), read_cost([relay.pid])
    with crowd(bench.site, bench.running) as others:
        opened = others.wait_until_up()
        handshakes = read_cost([relay.pid]).cpu_s - before.cpu_s
        time.sleep(_SETTLE_S)
        grown = read_rss_mib(relay.pid) - before_mib
        resting, idle, idle_s = time.monotonic(), read_cost([relay.pid]), 3 * bench.plan.seconds
        time.sleep(idle_s)
        idle_share = (read_cost([relay.pid]).cpu_s - idle.cpu_s) / idle_s
        pushing = time.monotonic()
        load = run_openloop(bench.site, steady(bench, bench.plan.seconds, _BESIDE_PER_S))
        ended = time.monotonic()
        full = _full_collection(bench, relay.pid)
    return {
        "tunnels": others.size,
        "kib_per_tunnel": grown * 1024 / others.size,
        "idle_cpu_share": idle_share,
        "open_s": opened - began,
        "cpu_ms_per_handshake": handshakes * 1e3 / others.size,
        "rss_mib": grown + before_mib,
        "p50_ms": load.p50_ms,
        "p90_ms": load.p90_ms,
        "p99_ms": load.p99_ms,
        "p999_ms": load.p999_ms,
        "failed": load.failed,
        **_pauses(bench, "opening", began, opened),
        **_pauses(bench, "idle", resting, pushing),
        **_pauses(bench, "pushing", pushing, ended),
        "gc_full_ms": full.seconds * 1e3,
    }


def _pauses(bench: Bench, phase: str, begin: float, end: float) -> Figures:
    """The pauses of one phase: the longest, all together, and as a share of the time."""
    seconds = [pause.seconds for pause in read_pauses(_pauses_file(bench), begin, end)]
    return {
        f"gc_{phase}_longest_ms": max(seconds, default=0.0) * 1e3,
        f"gc_{phase}_total_ms": sum(seconds) * 1e3,
        f"gc_{phase}_share": sum(seconds) / (end - begin),
    }


def _full_collection(bench: Bench, pid: int) -> Pause:
    asked = time.monotonic()
    os.kill(pid, signal.SIGUSR2)
    for _ in range(100):
        time.sleep(0.1)
        if full := [pause for pause in read_pauses(_pauses_file(bench), asked) if pause.generation == 2]:
            return full[0]
    raise BenchmarkError("the relay does not collect its garbage when it is asked to")


def _pauses_file(bench: Bench) -> Path:
    return Path(bench.running.details["pauses"])


def reconnect(push_s: float) -> Callable[[Bench], Figures]:
    """Kills the relay under its tunnels and starts it again; then pushes are due for `push_s`, through one connector.

    All times count from when the relay is ready again. `flowing_s`: the first push is answered by the target;
    the connector that it takes is one among all that come back. `p99_ms`: the pushes while the others come back.
    """
    return partial(_reconnect, push_s)


def _reconnect(push_s: float, bench: Bench) -> Figures:
    with crowd(bench.site, bench.running) as others:
        others.wait_until_up()
        time.sleep(_SETTLE_S)
        restart = bench.running.restart_relay
        assert restart is not None
        restart()
        ready = time.monotonic()
        relay = bench.running.roles["relay"]
        first = _first_push(bench, ready)
        cost, pushing = read_cost([relay.pid]), time.monotonic()
        beside = start_openloop(bench.site, steady(bench, push_s, _BACK_PER_S))
        times = {f"back_{share:.0%}_s": others.wait_until_up(share, ready, _BACK_S) for share in (0.5, 0.9, 0.99, 1.0)}
        cpu = read_cost([relay.pid]).cpu_s - cost.cpu_s
        busy = max(times.values()) - pushing
        load = beside.result()
    return {
        "tunnels": others.size,
        "flowing_s": first,
        **{name.replace("%", ""): at - ready for name, at in times.items()},
        "relay_cpu_share": cpu / busy,
        "p50_ms": load.p50_ms,
        "p90_ms": load.p90_ms,
        "p99_ms": load.p99_ms,
        "p999_ms": load.p999_ms,
        "pushes_per_s": load.pushes / load.seconds,
        "failed": load.failed,
    }


def _first_push(bench: Bench, since: float) -> float:
    """Seconds until a push gets through; the relay holds one for a while before it answers that nobody is there."""
    door = bench.running.endpoint("push", is_tls=False)

    def push() -> int:
        connection = http.client.HTTPConnection(door.host, door.port, timeout=_BACK_S)
        try:
            connection.request("POST", "/push", b"q" * PUSH_BYTES, sender_headers())
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    while time.monotonic() - since < _BACK_S:
        if bench.site.cloud.call(push) == 204:
            return time.monotonic() - since
        time.sleep(0.02)
    raise BenchmarkError(f"no push got through within {_BACK_S:.0f} s of the restart")


def used_tunnels(bench: Bench) -> Figures:
    """Memory of a tunnel when it is fresh, and after 1 MiB each way: one push of that size, and as large an answer."""
    relay = bench.running.roles["relay"]
    before = read_rss_mib(relay.pid)
    with crowd(bench.site, bench.running) as others:
        others.wait_until_up()
        time.sleep(_SETTLE_S)
        fresh = read_rss_mib(relay.pid)
        door = bench.running.endpoint("sink", is_tls=False)
        load = run_openloop(bench.site, Spec(
            door.host, door.port, door.is_tls, f"{CROWD}/%d/sink/flood?bytes={MIB}", others.size, others.size / 100,
            size=MIB, connections=16, headers=sender_headers(),
        ))  # fmt: skip
        time.sleep(_SETTLE_S)
        used = read_rss_mib(relay.pid)
    return {
        "tunnels": others.size,
        "kib_per_tunnel": (fresh - before) * 1024 / others.size,
        "used_kib_per_tunnel": (used - before) * 1024 / others.size,
        "rss_mib": used,
        "failed": load.failed,
    }


def pushing_tunnels(in_flight: int) -> Callable[[Bench], Figures]:
    """Pushes that go round all locations of the crowd, each of which has a connector with one tunnel.

    The crowd is one process, however many connectors it plays, and counts as the connector.
    """

    def measure(bench: Bench) -> Figures:
        door = bench.running.endpoint("push", is_tls=True)
        relay = bench.running.roles["relay"]
        with crowd(bench.site, bench.running) as others:
            others.wait_until_up()
            roles = {"relay": relay, "connector": others.process}
            counted = replace(bench, running=replace(bench.running, counted=[*roles.values()], roles=roles))

            def push(seconds: float) -> Figures:
                return metered(
                    counted,
                    lambda: run_wrk(
                        bench.site, door, f"{CROWD}/%d/push", size=PUSH_BYTES, in_flight=in_flight, seconds=seconds,
                        paths=others.size,
                    ),
                    push_bytes=PUSH_BYTES,
                )  # fmt: skip

            push(bench.plan.warm_up)
            return push(bench.plan.seconds) | {"tunnels": others.size}

    return measure


def _pushing(count: int) -> Scenario:
    about = f"2 KiB pushes, 16 in flight, that go round {count:,} locations with a tunnel each"
    return Scenario(
        f"tunnels-{count}", about, pushing_tunnels(16), group="scale", systems=("qanat",), shape=Shape(locations=count),
        takes_s=5.0,
    )  # fmt: skip


SCENARIOS = (
    _pushing(1),
    _pushing(10),
    _pushing(100),
    Scenario(
        "tunnels-used",
        f"memory of {_USED:,} tunnels, fresh and after 1 MiB each way",
        used_tunnels,
        group="tunnels",
        systems=("qanat",),
        shape=Shape(locations=_USED),
        is_long=True,
        takes_s=40.0,
        spans=0.0,
    ),
    Scenario(
        "idle-tunnels",
        f"{_IDLE:,} idle tunnels of {_IDLE // _EACH} connectors, and {_BESIDE_PER_S} pushes a second through another's",
        idle_tunnels,
        group="tunnels",
        systems=("qanat",),
        shape=Shape(idle_connectors=_IDLE // _EACH, tunnels_each=_EACH, gc_watch=True),
        is_long=True,
        takes_s=75.0,
        spans=4.0,
    ),
    Scenario(
        "reconnect-300",
        "300 tunnels come back after the relay was killed, with pushes meanwhile",
        reconnect(3.0),
        group="tunnels",
        systems=("qanat",),
        shape=Shape(idle_connectors=299),
        is_long=True,
        takes_s=12.0,
        spans=0.0,
    ),
    Scenario(
        "mass-reconnect",
        f"{_IDLE:,} tunnels come back after the relay was killed, with pushes meanwhile",
        reconnect(30.0),
        group="tunnels",
        systems=("qanat",),
        shape=Shape(idle_connectors=_IDLE // _EACH, tunnels_each=_EACH),
        is_long=True,
        takes_s=110.0,
        spans=0.0,
    ),
)
