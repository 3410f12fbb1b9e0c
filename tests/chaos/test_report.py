"""The report: a row a fault, and what becomes of it in the docs and in the plot."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.programs import ROOT
from chaos import docs
from chaos.docs import _FIGURES
from chaos.faults import FAULTS
from chaos.outcome import Outcome
from chaos.report import Report

MACHINE = {
    "cores": 2, "cpu": "one", "memory_gib": 4.0, "system": "Debian", "kernel": "6.1", "python": "3.11.7",
    "time": "2026-01-02T03:04:05Z",
}  # fmt: skip


def outcome(number: int, recovery: float | None = 0.5, **more: object) -> Outcome:
    return Outcome(
        number, "kill-relay", f"run {number}", pushes=10, acknowledged=10, recovery=recovery, recovery_bound=1.0,
        slowest=2.0, lasted=1.0, acknowledged_at=[-0.5, 0.2, 1.5], failed_at=[0.1], **more,  # type: ignore[arg-type]
    )  # fmt: skip


def report(*outcomes: Outcome) -> Report:
    return Report(7, MACHINE, list(outcomes))


def test_a_row_sums_up_the_runs_of_a_fault():
    first, second = outcome(0, 0.2, failed={"tunnel-lost": 1}), outcome(1, 0.6, failed={"tunnel-lost": 2})
    made = report(first, second, outcome(2, 0.4))
    (row,) = made.rows()
    assert (row.runs, row.pushes, row.recovery_median, row.recovery_max) == (3, 30, 0.4, 0.6)
    assert row.failed_tries == {"tunnel-lost": 3}
    assert made.is_good
    assert "tunnel-lost:3" in made.lines()[1]


def test_one_finding_makes_it_no_success():
    bad = report(outcome(0), outcome(1, None, findings=["lost"]))
    assert not bad.is_good
    assert "(1 FAILED)" in bad.lines()[1]
    assert bad.as_json()["findings"] == [{"run": "run 1", "findings": ["lost"]}]


def test_nothing_played_is_no_success():
    assert not report().is_good


def test_the_docs_have_a_row_for_every_fault():
    text = docs.table(json.loads(json.dumps(report(outcome(0)).as_json())))
    assert all(f"**{name}**" in text for name in FAULTS)
    assert "0.50, 0.50 (1.0), 1 run |" in text
    assert text.count("not played") == len(FAULTS) - 1


def test_only_what_is_between_the_marks_changes():
    made = json.loads(json.dumps(report(outcome(0)).as_json()))
    page = docs.updated(f"before\n{docs.BEGIN}\nOUTDATED\n{docs.END}\nafter\n", made)
    assert page.startswith("before\n")
    assert page.endswith(f"{docs.END}\nafter\n")
    assert "OUTDATED" not in page
    assert docs.updated(page, made) == page
    with pytest.raises(ValueError, match="marks"):
        docs.updated("nothing", made)


def test_the_timeline_is_drawn(tmp_path):
    from chaos.plots import draw

    draw(report(outcome(0), outcome(1, None)), tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_a_sentence_for_each_figure_of_a_fault():
    sources = "".join(path.read_text() for path in (ROOT / "chaos" / "faults").glob("*.py"))
    noted = set(re.findall(r'figures\["(\w+)"\]', sources))
    assert noted
    assert noted == set(_FIGURES)
