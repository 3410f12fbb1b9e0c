"""The kinds of load, in the order in which they matter."""

from __future__ import annotations

from benchmarks.scenarios.base import Bench, Figures, Plan, Scenario
from benchmarks.scenarios.bulk import SCENARIOS as BULK
from benchmarks.scenarios.hostile import SCENARIOS as HOSTILE
from benchmarks.scenarios.links import SCENARIOS as LINKS
from benchmarks.scenarios.many import SCENARIOS as MANY
from benchmarks.scenarios.mixed import SCENARIOS as MIXED
from benchmarks.scenarios.scp import SCENARIOS as SCP
from benchmarks.scenarios.small import SCENARIOS as SMALL
from benchmarks.scenarios.tunnels import SCENARIOS as TUNNELS
from benchmarks.scenarios.workers import SCENARIOS as WORKERS

SCENARIOS: tuple[Scenario, ...] = (*SMALL, *BULK, *MIXED, *LINKS, *MANY, *WORKERS, *TUNNELS, *HOSTILE, *SCP)

__all__ = ["SCENARIOS", "Bench", "Figures", "Plan", "Scenario"]
