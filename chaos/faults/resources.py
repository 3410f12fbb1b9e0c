"""What runs out: the disk, file descriptors, memory."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import time
from typing import Final

from benchmarks.procfs import read_peak_rss_mib, read_rss_mib, read_stat
from chaos.configs import ACME, BUDGET_MIB, CONNECTORS
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.isolation import MemoryGroup, full, why_no_disks, why_no_memory_groups
from chaos.pushes import TENANTS
from chaos.site import RELAY, Site
from chaos.stage import Stage
from chaos.terms import Terms

ALL: Final = frozenset(TENANTS)
_CONNECTIONS: Final = 60
_MOST_CPU: Final = 0.7
"""Of one core: beyond it the process spins. What it works otherwise takes a tenth to a fifth."""

_FLOOD: Final = 100
_FLOOD_BYTES: Final = 1_000_000
"""As much as the first credit of a stream: all of it comes into the relay, and together it is more than the budget."""


async def fill_disk(stage: Stage, parameters: Parameters) -> None:
    victim = str(parameters["victim"])
    with full(stage.site.disk(victim)):
        stage.begins(f"no byte can be written to the disk of {victim}")
        await stage.lasts(seconds_of(parameters))
    stage.ends("there is room again")


async def use_up_descriptors(stage: Stage, parameters: Parameters) -> None:
    """The limit comes down to what is open, and connections come in that nobody can take."""
    site, victim = stage.site, str(parameters["victim"])
    program = site.programs[victim]
    before = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    lost = _lost_tunnels(site)
    stage.begins(f"{victim} can open no more descriptors")
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (program.open_files, before[1]))
    strangers = await asyncio.to_thread(_connect, site) if victim == RELAY else []
    began, cpu = time.monotonic(), _cpu(program.pid)
    try:
        await stage.lasts(seconds_of(parameters))
        share = (_cpu(program.pid) - cpu) / (time.monotonic() - began)
    finally:
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, before)
        for stranger in strangers:
            stranger.close()
    stage.ends("it can again")
    stage.figures["cpu_share"] = round(share, 3)
    if share > _MOST_CPU:
        stage.finds(f"{victim} spun without descriptors: {share:.0%} of a core")
    if more := _lost_tunnels(site) - lost:
        stage.finds(f"{more} tunnels were lost")


async def flood_memory(stage: Stage, parameters: Parameters) -> None:
    """Large pushes to a target that stands still, while the relay may grow by its budget and half as much."""
    site = stage.site
    pid, target = site.relay.pid, site.programs[f"{ACME}-target"]
    rss = read_rss_mib(pid)
    group = MemoryGroup(f"qanat-chaos-{pid}")
    site.relay.forget_peak()
    stage.begins(f"{_FLOOD} pushes of 1 MB to a target that stands still")
    group.hold(pid, int((rss + 1.5 * BUDGET_MIB) * 2**20))
    try:
        target.signal(signal.SIGSTOP)
        site.flood(ACME, _FLOOD, _FLOOD_BYTES)
        await stage.lasts(seconds_of(parameters))
        target.signal(signal.SIGCONT)
        stage.ends("the target goes on")
        await stage.lasts(1.0)
        stage.figures["grown_mib"] = round(read_peak_rss_mib(pid) - rss, 1)
        if group.out_of_memory or not site.relay.is_running:
            stage.finds("the relay used more memory than its budget and half as much, and was killed")
    finally:
        target.signal(signal.SIGCONT)
        group.release(pid)


def _lost_tunnels(site: Site) -> int:
    """How many tunnels have ended so far, save those that another took the place of, as after a renewal."""
    ended = [line for line in site.relay.err.splitlines() if '"event":"tunnel ended"' in line]
    return sum('"code":"going-away"' not in line for line in ended)


def _connect(site: Site) -> list[socket.socket]:
    network, port = site.network, site.keys.ports["ingress"]
    return network.senders.call(
        lambda: [socket.create_connection((network.ingress, port), 2.0) for _ in range(_CONNECTIONS)]
    )


def _cpu(pid: int) -> float:
    stat = read_stat(pid)
    return stat.cpu_s if stat is not None else 0.0


def _unhurt(_: Parameters) -> Terms:
    return Terms()


def _without_descriptors(parameters: Parameters) -> Terms:
    victim = str(parameters["victim"])
    if victim == RELAY:  # who has a connection goes on; others wait for theirs
        return Terms(holds_up=True)
    return Terms(hurts=frozenset({CONNECTORS[victim]}), codes=frozenset({"target-unreachable"}))


def _flooded(_: Parameters) -> Terms:
    codes = {"out-of-credit", "overloaded", "deadline-exceeded", "target-too-slow"}
    return Terms(hurts=ALL, codes=frozenset(codes), aftermath=4.0, holds_up=True)


FAULTS: Final = (
    Fault(
        "disk-full", "no byte can be written, by the relay or by a connector", fill_disk, _unhurt,
        span(0.5, 4.0, victim=(RELAY, "c1", "x1")), why_no_disks,
        seen=(
            "Nothing. Access lines that cannot be written are lost and counted; certificates are renewed when "
            "there is room."
        ),
    ),
    Fault(
        "no-descriptors", "all file descriptors are used up, of the relay or of a connector", use_up_descriptors,
        _without_descriptors, span(0.5, 3.0, victim=(RELAY, "x1")),
        seen=(
            "Relay: kept connections go on, new ones wait until there are descriptors. Connector: pushes that "
            "need a new connection to the target get 502 `target-unreachable`."
        ),
    ),
    Fault(
        "memory-flood", "more large pushes than the relay's memory takes, in a control group that bounds it",
        flood_memory, _flooded, span(1.0, 4.0), why_no_memory_groups, weight=0.5,
        seen=(
            "Pushes wait for the target; what the budget does not take gets 503 `overloaded` or `out-of-credit`. "
            "The relay stays within its budget and half as much."
        ),
    ),
)  # fmt: skip
