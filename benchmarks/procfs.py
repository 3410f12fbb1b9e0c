"""What processes cost, from /proc: CPU seconds and resident memory of a process and all that descends from it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Stat(NamedTuple):
    """One line of /proc/<pid>/stat: parent, start time in ticks since boot (tells a reused id), CPU seconds."""

    pid: int
    parent: int
    started: int
    cpu_s: float


def parse_stat(text: str) -> Stat:
    """Reads proc(5)'s stat; the CPU is user + system, of its own and of the children it has waited for."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    ticks = sum(int(field) for field in fields[11:15])
    return Stat(int(head.split(" ", 1)[0]), int(fields[1]), int(fields[19]), ticks * _TICK)


def read_stat(pid: int) -> Stat | None:
    """The process's stat, None when it is gone."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_rss_mib(pid: int) -> float:
    """Resident memory of one process, 0.0 when it is gone."""
    return _read_status_kib(pid, "VmRSS:") / 1024


def read_peak_rss_mib(pid: int) -> float:
    """The most resident memory that the process ever had."""
    return _read_status_kib(pid, "VmHWM:") / 1024


def _read_status_kib(pid: int, key: str) -> int:
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(key)), 0)


def _all_stats() -> list[Stat]:
    stats = (read_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [stat for stat in stats if stat is not None]


@dataclass(slots=True)
class Tree:
    """A process and its descendants, found by their parents' ids."""

    root: int
    members: dict[int, Stat]

    def __init__(self, root: int) -> None:
        self.root = root
        self.members = {}

    def refresh(self) -> None:
        """Looks who is there now."""
        self.members = select_tree(_all_stats(), self.root)

    def kill_descendants(self) -> None:
        """Ends what is left of the descendants that `refresh` saw."""
        for stat in self.members.values():
            now = read_stat(stat.pid)
            if stat.pid != self.root and now is not None and now.started == stat.started:
                try:
                    os.kill(stat.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def select_tree(stats: list[Stat], root: int) -> dict[int, Stat]:
    """Those of `stats` that are `root` or descend from it."""
    by_parent: dict[int, list[Stat]] = {}
    for stat in stats:
        by_parent.setdefault(stat.parent, []).append(stat)
    members = {stat.pid: stat for stat in stats if stat.pid == root}
    waiting = list(members)
    while waiting:
        for child in by_parent.get(waiting.pop(), ()):
            members[child.pid] = child
            waiting.append(child.pid)
    return members


class Cost(NamedTuple):
    """CPU seconds so far and resident MiB now."""

    cpu_s: float
    rss_mib: float


def read_cost(roots: list[int]) -> Cost:
    """What the processes with these ids and all their descendants have cost so far."""
    stats = _all_stats()
    members: dict[int, Stat] = {}
    for root in roots:
        members |= select_tree(stats, root)
    return Cost(sum(stat.cpu_s for stat in members.values()), sum(read_rss_mib(pid) for pid in members))


def read_shares(root: int) -> dict[int, float]:
    """CPU seconds so far of a process and of each of its descendants, by id."""
    return {pid: stat.cpu_s for pid, stat in select_tree(_all_stats(), root).items()}


def read_memory(root: int) -> tuple[float, float]:
    """Resident MiB of a process and all its descendants, now and at the highest of each; shared pages count twice."""
    members = select_tree(_all_stats(), root)
    return sum(read_rss_mib(pid) for pid in members), sum(read_peak_rss_mib(pid) for pid in members)
