"""What a scenario is, and how a load becomes figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.load.figures import Load
from benchmarks.procfs import read_cost, read_memory, read_shares
from benchmarks.site import Site
from benchmarks.systems.base import ONE, Running, Shape

Figures = dict[str, float]
PEERS = ("qanat", "qanat-compiled", "nginx+ssh-R", "rathole", "nginx+chisel", "frp")
"""The systems for what takes long, or would say nothing new of the others."""
WITHOUT_WORKERS = (*PEERS, "direct")
"""The systems where a second worker says nothing new either."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure; `is_quick` keeps everything within a minute."""

    seconds: float = 3.0
    warm_up: float = 1.0
    is_quick: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """One system that is up, for a scenario to measure."""

    system: str
    site: Site
    running: Running
    plan: Plan


@dataclass(frozen=True, slots=True)
class LinkShape:
    """What lies between the two sides, when they are two networks: rate, one-way delay, queue, MTU."""

    bits_per_s: float
    delay_s: float
    queue_bytes: int
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `systems` names those that it makes sense for, None for all; `link` wants two networks.

    `has_file_server` wants an sshd beside the other targets, and a way to it through each of the systems. `group` is
    what runs together when not all do. `is_long` is repeated less often, and `takes_s` is about how long one measure
    takes beyond `spans` times the plan's seconds: for the remaining time, which is told.
    """

    name: str
    about: str
    measure: Callable[[Bench], Figures]
    group: str = "small"
    systems: tuple[str, ...] | None = None
    shape: Shape = ONE
    link: LinkShape | None = None
    is_quick: bool = False
    has_file_server: bool = False
    is_long: bool = False
    takes_s: float = 1.5
    spans: float = 1.0

    def expected_s(self, plan: Plan) -> float:
        """About how long one measure of one system takes."""
        return self.takes_s + self.spans * plan.seconds


def metered(bench: Bench, run: Callable[[], Load], *, push_bytes: int) -> Figures:
    """Runs a load and says what it cost the system, and each of its processes that has a role; see `figures_of`.

    `relay_busiest_share`, where the relay is several processes: the part of its CPU that its busiest one took.
    """
    roles = bench.running.roles
    before, parts = read_cost(bench.running.pids), {role: read_shares(one.pid) for role, one in roles.items()}
    load = run()
    after = read_cost(bench.running.pids)
    figures = figures_of(load, cpu_s=after.cpu_s - before.cpu_s, push_bytes=push_bytes)
    for role, process in roles.items():
        spent = [cpu_s - parts[role].get(pid, 0.0) for pid, cpu_s in read_shares(process.pid).items()]
        if load.pushes and sum(spent) > 0:
            figures[f"{role}_cpu_us_per_push"] = sum(spent) * 1e6 / load.pushes
        if len(spent) > 1 and sum(spent) > 0:
            figures[f"{role}_busiest_share"] = max(spent) / sum(spent)
    figures["rss_mib"] = after.rss_mib
    return figures | memory_of(bench.running)


def memory_of(running: Running) -> Figures:
    """Resident memory, now and at its highest, of each process that has a role, with all that it started."""
    figures: Figures = {}
    for role, process in running.roles.items():
        figures[f"{role}_rss_mib"], figures[f"{role}_peak_rss_mib"] = read_memory(process.pid)
    return figures


def figures_of(load: Load, *, cpu_s: float, push_bytes: int) -> Figures:
    """The figures of one load: rates, CPU of the system per push and per MB, latencies in ms, failures.

    1 MB is 10**6 bytes. What cannot be said is left out: no CPU figures for a system without processes.
    """
    figures: Figures = {
        "pushes_per_s": load.pushes / load.seconds,
        "mb_per_s": load.pushes * push_bytes / load.seconds / 1e6,
        "p50_ms": load.p50_ms,
        "p90_ms": load.p90_ms,
        "p99_ms": load.p99_ms,
        "p999_ms": load.p999_ms,
        "failed": load.failed,
    }
    if cpu_s > 0 and load.pushes:
        figures["cpu_us_per_push"] = cpu_s * 1e6 / load.pushes
        figures["mb_per_cpu_s"] = load.pushes * push_bytes / 1e6 / cpu_s
        figures["cpu_share"] = cpu_s / load.seconds
    return figures | dict(load.extra)


def prefixed(figures: Mapping[str, float], prefix: str, *names: str) -> Figures:
    """Some of the figures under names with a prefix."""
    return {f"{prefix}_{name}": figures[name] for name in names if name in figures}
