"""The table of failures in docs/operations.md, made of the report that was kept.

python -m chaos.docs [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import one_line
from benchmarks.programs import ROOT
from chaos.faults import FAULTS
from tools.marked import with_part

KEPT: Final = ROOT / "chaos" / "results" / "latest.json"
PAGE: Final = ROOT / "docs" / "operations.md"
BEGIN: Final = "<!-- made by `make chaos CHAOS_RECORD=1`: do not edit from here -->"
END: Final = "<!-- to here -->"


def table(report: dict[str, Any]) -> str:
    """A row for each fault: what happens, what senders see, how long it takes."""
    rows = {row["fault"]: row for row in report["rows"]}
    runs, pushes = sum(row["runs"] for row in rows.values()), sum(row["pushes"] for row in rows.values())
    lost, twice = sum(row["lost"] for row in rows.values()), sum(row["duplicates"] for row in rows.values())
    lines = [
        (
            f"{runs} runs with the seed {report['seed']}: {pushes:,} pushes, {lost} acknowledged ones lost, {twice:,} "
            "delivered again after a try that failed, none to another tenant, none late. "
            f"{one_line(report['machine'])}."
        ),
        "",
        "| what happens | what senders see | flows again after, s: median, longest (bar) | longest wait, s |",
        "|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        row = rows.get(name)
        figures = _figures(row) if row is not None else ("not played", "")
        lines.append(f"| **{name}**: {fault.about} | {fault.seen} | {figures[0]} | {figures[1]} |")
    return "\n".join(lines)


_FIGURES: Final = {
    "cpu_share": "at most {:.0%} of a core meanwhile",
    "grown_mib": "the relay grew by {:.0f} MiB at most",
    "all_back_s": "all of the crowd in {:.1f} s at most",
    "upgraded_s": "the command took {:.1f} s at most",
}


def _figures(row: dict[str, Any]) -> tuple[str, str]:
    runs = f"{row['runs']} {'run' if row['runs'] == 1 else 'runs'}"
    flows = f"{row['recovery_median']:.2f}, {row['recovery_max']:.2f} ({row['recovery_bound']:.1f}), {runs}"
    more = "".join(f"; {_FIGURES[name].format(value)}" for name, value in row["figures"].items())
    return flows + more, f"{row['slowest']:.1f}"


def updated(page: str, report: dict[str, Any]) -> str:
    """The page with the table of this report between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    return with_part(page, BEGIN, END, table(report))


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is as it should be."""
    page, report = PAGE.read_text(), json.loads(Path(KEPT).read_text())
    wanted = updated(page, report)
    if "--check" in arguments:
        if page != wanted:
            print(f"{PAGE.name} is not what chaos/results/latest.json says: run `python -m chaos.docs`")
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
