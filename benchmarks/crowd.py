"""A crowd of connectors beside the one that is measured: started, waited for, and looked at."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import ROOT, BenchmarkError, Process
from benchmarks.site import Site
from benchmarks.systems.base import Running

_OPEN_S = 300.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """`size` connectors in one process, each with one tunnel."""

    process: Process
    size: int
    timeline: Path

    def history(self) -> list[tuple[float, int]]:
        """(CLOCK_MONOTONIC, tunnels that are up), one for each change that was seen."""
        lines = self.timeline.read_text().splitlines() if self.timeline.exists() else []
        pairs = (line.split() for line in lines)
        return [(float(pair[0]), int(pair[1])) for pair in pairs if len(pair) == 2]

    def wait_until_up(self, share: float = 1.0, since: float = 0.0, timeout: float = _OPEN_S) -> float:
        """Waits until so many are up, after `since`; when that was.

        Raises:
            BenchmarkError: it ended, or took too long.
        """
        wanted, deadline, up = share * self.size, time.monotonic() + timeout, 0
        while time.monotonic() < deadline and self.process.is_running:
            history = [(at, up) for at, up in self.history() if at >= since]
            for at, up in history:
                if up >= wanted:
                    return at
            time.sleep(0.1)
        raise BenchmarkError(f"{up:,} of {self.size:,} tunnels came up\n{self.process.tail()}")


@contextlib.contextmanager
def crowd(site: Site, running: Running) -> Iterator[Crowd]:
    """Starts those that the system's details name, and ends them."""
    details = running.details
    names, timeline = site.folder / "crowd.identities", site.folder / "crowd.timeline"
    names.write_text(details["crowd"])
    timeline.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "benchmarks.load.crowd", details["config"], details["pki"], details["address"]]
    argv += [details["tunnel_port"], str(timeline), str(names)]
    process = site.start(site.premises, argv, "crowd", {"PYTHONPATH": str(ROOT)})
    try:
        yield Crowd(process, len(details["crowd"].split()), timeline)
    finally:
        site.end(process)
