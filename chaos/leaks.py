"""What a program keeps when it is at rest: descriptors, tasks, memory. More than after its start is a leak."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.procfs import read_rss_mib
from chaos.configs import BUDGET_MIB, CONNECTORS
from chaos.site import RELAY, Site

SPARE: Final = 4
"""Descriptors and tasks that come and go by themselves: a name that is looked up, a certificate that is renewed."""

MEMORY: Final = 3.0 * BUDGET_MIB
"""MiB that the allocator may keep: of what pushes once held, all of the budget and what lies between, and of hundreds
of TLS connections at once. It comes up to some two thirds of that within a few runs, and stays there."""

_PATIENCE: Final = 4.0
"""Seconds for what is under way by itself to end."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of a program at rest, all its processes together. Descriptors of tunnels, and of pooled connections to targets,
    are not counted."""

    pids: tuple[int, ...]
    descriptors: int
    tasks: int
    rss_mib: float

    def beyond(self, first: Footprint) -> list[str]:
        """What has grown since the first footprint of these processes."""
        found = [
            f"{now - then} {what} more than at its start ({then})"
            for what, then, now in (
                ("descriptors", first.descriptors, self.descriptors),
                ("tasks", first.tasks, self.tasks),
            )
            if now > then + SPARE
        ]
        if self.rss_mib > first.rss_mib + MEMORY:
            found.append(f"{self.rss_mib - first.rss_mib:.0f} MiB more than at its start ({first.rss_mib:.0f})")
        return found


class Leaks:
    """The footprints of a site's programs, from run to run."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._firsts: dict[str, Footprint] = {}
        self.grown_mib: dict[str, float] = {}
        """By how much each program's resident memory was above that of its start, at the last look."""

    async def check(self) -> list[str]:
        """What has leaked, of a site at rest; asked for some seconds before it counts."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = [text for name in (RELAY, *CONNECTORS) for text in await self._look(name)]
            if not found or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.2)

    async def _look(self, name: str) -> list[str]:
        status, pids = await self._site.status(name), tuple(self._site.processes(name))
        if status is None:
            return [f"{name} does not answer"]
        explained = _tunnels(status) + _pooled(status)
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        now = Footprint(pids, files - explained, int(status["tasks"]), sum(map(read_rss_mib, pids)))
        first = self._firsts.get(name)
        if first is None or first.pids != now.pids:
            first = self._firsts[name] = now
        self.grown_mib[name] = round(now.rss_mib - first.rss_mib, 1)
        return [f"{name} has {text}" for text in now.beyond(first)]


def _tunnels(status: dict[str, Any]) -> int:
    if "tunnels" in status:
        return sum(row["age_s"] is not None for row in status["tunnels"])
    return sum(
        len(connector["tunnels"])
        for tenant in status["tenants"]
        for location in tenant["locations"]
        for connector in location["connectors"]
    )


def _pooled(status: dict[str, Any]) -> int:
    return sum(int(target["connections"]["open"]) for target in status.get("targets", ()))
