"""Results: medians and spreads of repeats, ratios to the peers, as JSON."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scenarios.base import Figures

# rounded for people; JSON keeps four significant digits
_DIGITS = 4

_SAME = ("cpu", "cores", "memory_gib", "kernel", "python")


@dataclass(slots=True)
class Result:
    """One scenario over one system: the median of each figure, and its least and greatest value among the repeats."""

    scenario: str
    system: str
    repeats: int
    median: Figures
    spread: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, scenario: str, system: str, measures: list[Figures]) -> Result:
        names = list(dict.fromkeys(name for figures in measures for name in figures))
        median: Figures = {}
        spread: dict[str, tuple[float, float]] = {}
        for name in names:
            values = [figures[name] for figures in measures if name in figures and not math.isnan(figures[name])]
            if values:
                median[name] = statistics.median(values)
                spread[name] = (min(values), max(values))
        return cls(scenario, system, len(measures), median, spread)


@dataclass(slots=True)
class Report:
    """Everything that one run yielded, and what it could not do."""

    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def take(self, results: Iterable[Result]) -> None:
        """Adds results; each takes the place of an older one of its scenario and system."""
        self.results = merge(self.results, results)

    def find(self, scenario: str, system: str) -> Result | None:
        return next((one for one in self.results if (one.scenario, one.system) == (scenario, system)), None)

    def variants(self, ours: str) -> list[str]:
        """The other builds and set-ups of ours that were measured."""
        return list(dict.fromkeys(one.system for one in self.results if is_ours(one.system) and one.system != ours))

    def ratio(self, scenario: str, name: str, system: str, peer: str) -> float | None:
        """One figure of `system` by that of `peer`; `added_…` is without what the target alone takes."""
        mine, theirs = self.find(scenario, system), self.find(scenario, peer)
        if mine is None or theirs is None:
            return None
        return (_divide(mine.median, theirs.median) | self._added(scenario, mine, theirs)).get(name)

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(one.scenario for one in self.results))

    def ratios(self, ours: str) -> dict[str, dict[str, Figures]]:
        """{scenario: {peer: {figure: median of `ours` ÷ theirs}}}, without what is 0 or unknown on a side."""
        table: dict[str, dict[str, Figures]] = {}
        for scenario in self.scenarios():
            mine = self.find(scenario, ours)
            if mine is None:
                continue
            for peer in (one for one in self.results if one.scenario == scenario and not is_ours(one.system)):
                ratio = _divide(mine.median, peer.median) | self._added(scenario, mine, peer)
                table.setdefault(scenario, {})[peer.system] = ratio
        return table

    def _added(self, scenario: str, mine: Result, peer: Result) -> Figures:
        """The ratio of what each adds to the latency of the target alone, where that was measured."""
        floor = self.find(scenario, "direct")
        if floor is None or peer is floor or any("p50_ms" not in one.median for one in (floor, mine, peer)):
            return {}
        base = floor.median["p50_ms"]
        return _divide({"added_p50_ms": mine.median["p50_ms"] - base}, {"added_p50_ms": peer.median["p50_ms"] - base})

    def as_json(self, ours: str) -> dict[str, Any]:
        return {
            "schema": "qanat.benchmarks.v1",
            "machine": self.machine,
            "results": [_result_json(result) for result in self.results],
            "ratios": self._ratios_json(ours),
            "ratios_of": {variant: self._ratios_json(variant) for variant in self.variants(ours)},
            "missing": self.missing,
        }

    def _ratios_json(self, ours: str) -> dict[str, dict[str, Figures]]:
        return {
            scenario: {peer: _rounded(figures) for peer, figures in peers.items()}
            for scenario, peers in self.ratios(ours).items()
        }

    def write(self, path: Path, ours: str) -> None:
        """Writes the JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.as_json(ours), indent=1) + "\n")
        os.replace(partial, path)


def is_ours(system: str) -> bool:
    """Whether it is Qanat in one of its builds and set-ups, and so no peer."""
    return system.partition("-")[0] == "qanat"


def load_report(path: Path) -> Report:
    """Reads what `Report.write` wrote."""
    content = json.loads(path.read_text())
    results = [_result_from(entry) for entry in content["results"]]
    return Report(content["machine"], results, content.get("missing", {}))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Why figures of these two machines do not belong in one report: what differs of what makes them fast."""
    return [f"{key} was {old.get(key)}, is {new.get(key)}" for key in _SAME if old.get(key) != new.get(key)]


def merge(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """The old results, each replaced by the new one of its scenario and system, and then those that are only new."""
    latest = {(one.scenario, one.system): one for one in new}
    kept = [latest.pop((one.scenario, one.system), one) for one in old]
    return [*kept, *latest.values()]


def _divide(mine: Mapping[str, float], theirs: Mapping[str, float]) -> Figures:
    return {
        name: value / theirs[name]
        for name, value in mine.items()
        if theirs.get(name, 0.0) > 0 and value > 0 and not name.startswith(("failed", "lost"))
    }


def _rounded(figures: Mapping[str, float]) -> Figures:
    return {name: _round(value) for name, value in figures.items()}


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _result_json(result: Result) -> dict[str, Any]:
    spread = {name: [_round(low), _round(high)] for name, (low, high) in result.spread.items()}
    head = {"scenario": result.scenario, "system": result.system, "repeats": result.repeats}
    return head | _rounded(result.median) | {"spread": spread}


def _result_from(entry: dict[str, Any]) -> Result:
    spread = {name: (low, high) for name, (low, high) in entry["spread"].items()}
    median = {name: entry[name] for name in spread}
    return Result(entry["scenario"], entry["system"], entry["repeats"], median, spread)
