"""The report: one row a fault, as JSON and as text."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one fault. Seconds."""

    fault: str
    runs: int
    failed_runs: int
    pushes: int
    acknowledged: int
    lost: int
    duplicates: int
    failed_tries: dict[str, int]
    recovery_median: float | None
    recovery_max: float | None
    recovery_bound: float
    slowest: float
    slowest_bound: float | None
    figures: dict[str, float]


@dataclass(slots=True)
class Report:
    """All runs of a session, and what could not be played."""

    seed: int
    machine: dict[str, Any]
    outcomes: list[Outcome]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether every ledger balanced and all came back in time. Nothing played is nothing proven."""
        return bool(self.outcomes) and all(one.is_good for one in self.outcomes)

    def rows(self) -> list[Row]:
        by_fault: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            by_fault.setdefault(outcome.fault, []).append(outcome)
        return [_row(name, by_fault[name]) for name in sorted(by_fault)]

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": "qanat.chaos.v1",
            "seed": self.seed,
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows()],
            "left_out": self.left_out,
            "findings": [{"run": one.text, "findings": one.findings} for one in self.outcomes if one.findings],
        }

    def write(self, folder: Path) -> None:
        """report.json and report.txt, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("report.json", json.dumps(self.as_json(), indent=1) + "\n"),
            ("report.txt", "\n".join(self.lines()) + "\n"),
        ):
            partial = folder / f"{name}.partial"
            partial.write_text(text)
            os.replace(partial, folder / name)

    def lines(self) -> list[str]:
        """The table, as text."""
        head = (
            "fault", "runs", "pushes", "acknowledged", "lost", "duplicates", "failed tries", "recovery s: median",
            "max", "bound", "slowest try s", "bound",
        )  # fmt: skip
        return _table([head, *(_cells(row) for row in self.rows())])


def _row(name: str, outcomes: list[Outcome]) -> Row:
    recoveries = [one.recovery for one in outcomes if one.recovery is not None]
    failed: Counter[str] = Counter()
    for one in outcomes:
        failed.update(one.failed)
    slow = [one.slowest_bound for one in outcomes if one.slowest_bound is not None]
    return Row(
        fault=name,
        runs=len(outcomes),
        failed_runs=sum(not one.is_good for one in outcomes),
        pushes=sum(one.pushes for one in outcomes),
        acknowledged=sum(one.acknowledged for one in outcomes),
        lost=sum(one.lost for one in outcomes),
        duplicates=sum(one.duplicates for one in outcomes),
        failed_tries=dict(failed),
        recovery_median=statistics.median(recoveries) if recoveries else None,
        recovery_max=max(recoveries, default=None),
        recovery_bound=max(one.recovery_bound for one in outcomes),
        slowest=max(one.slowest for one in outcomes),
        slowest_bound=max(slow, default=None),
        figures={key: max(one.figures.get(key, 0.0) for one in outcomes) for one in outcomes for key in one.figures},
    )


def _cells(row: Row) -> tuple[str, ...]:
    runs = f"{row.runs}" if not row.failed_runs else f"{row.runs} ({row.failed_runs} FAILED)"
    reasons = " ".join(f"{name}:{count}" for name, count in sorted(row.failed_tries.items()))
    return (
        row.fault, runs, f"{row.pushes}", f"{row.acknowledged}", f"{row.lost}", f"{row.duplicates}", reasons or "0",
        _seconds(row.recovery_median), _seconds(row.recovery_max), _seconds(row.recovery_bound),
        _seconds(row.slowest), _seconds(row.slowest_bound),
    )  # fmt: skip


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
