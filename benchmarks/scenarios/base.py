"""What a scenario is, and how a load becomes figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.load.figures import Load
from benchmarks.procfs import read_cost, read_peak_rss_mib, read_rss_mib
from benchmarks.site import Site
from benchmarks.systems.base import ONE, Running, Shape

Figures = dict[str, float]
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure; `is_quick` keeps everything within a minute."""

    seconds: float = 5.0
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

    `has_file_server` wants an sshd beside the other targets, and a way to it through each of the systems.
    """

    name: str
    about: str
    measure: Callable[[Bench], Figures]
    systems: tuple[str, ...] | None = None
    shape: Shape = ONE
    link: LinkShape | None = None
    is_quick: bool = False
    has_file_server: bool = False


def metered(bench: Bench, run: Callable[[], Load], *, push_bytes: int) -> Figures:
    """Runs a load and says what it cost the system; see `figures_of`."""
    before = read_cost(bench.running.pids)
    load = run()
    after = read_cost(bench.running.pids)
    figures = figures_of(load, cpu_s=after.cpu_s - before.cpu_s, push_bytes=push_bytes)
    figures["rss_mib"] = after.rss_mib
    return figures | memory_of(bench.running)


def memory_of(running: Running) -> Figures:
    """Resident memory, now and at its highest, of each process that has a role."""
    figures: Figures = {}
    for role, process in running.roles.items():
        figures[f"{role}_rss_mib"] = read_rss_mib(process.pid)
        figures[f"{role}_peak_rss_mib"] = read_peak_rss_mib(process.pid)
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
