"""The timeline: what was acknowledged, and what failed, around each kind of fault."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks.machine import one_line
from chaos.outcome import Outcome
from chaos.report import Report

_BEFORE: Final = -1.0
_AFTER: Final = 2.5
"""Seconds shown before the fault's begin, and after its end."""

_BIN: Final = 0.1
_COLUMNS: Final = 4
_GOOD, _BAD, _SPAN = "#1f7a8c", "#a23e48", "#e8e2d0"


def draw(report: Report, path: Path) -> None:
    """A panel for each fault: the median run's acknowledged pushes a second, and when tries failed in all of them."""
    names = sorted({one.fault for one in report.outcomes if one.acknowledged_at})
    rows = max(1, math.ceil(len(names) / _COLUMNS))
    figure = Figure(figsize=(4 * _COLUMNS, 1.9 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for axes, name in zip(panels, names, strict=False):
        _draw(axes, name, [one for one in report.outcomes if one.fault == name and one.acknowledged_at])
    for axes in list(figure.axes)[len(names) :]:
        axes.set_visible(False)
    figure.suptitle(
        f"Pushes acknowledged a second (blue) and tries that failed (red marks) around each fault (shaded); "
        f"seconds from its begin; seed {report.seed}, {len(report.outcomes)} runs",
        fontsize=10,
    )
    figure.supxlabel(one_line(report.machine), fontsize=7, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _draw(axes: Any, name: str, outcomes: Sequence[Outcome]) -> None:
    """The run whose fault lasted the median time is drawn, so that its shape is not washed out."""
    shown = sorted(outcomes, key=lambda one: one.lasted)[len(outcomes) // 2]
    end = shown.lasted + (shown.recovery or 0.0) + _AFTER
    bins = [_BEFORE + _BIN * number for number in range(math.ceil((end - _BEFORE) / _BIN) + 1)]
    counts = _histogram(shown.acknowledged_at, bins)
    axes.axvspan(0.0, shown.lasted, color=_SPAN, linewidth=0)
    axes.step(bins[:-1], [count / _BIN for count in counts], where="post", color=_GOOD, linewidth=0.9)
    failed = [at for one in outcomes for at in one.failed_at if _BEFORE <= at <= end]
    axes.plot(failed, [0.0] * len(failed), "|", color=_BAD, markersize=7, markeredgewidth=0.5)
    recoveries = [one.recovery for one in outcomes if one.recovery is not None]
    recovery = f", back in {statistics.median(recoveries):.2f} s" if recoveries else ""
    axes.set_title(f"{name}: {len(outcomes)} runs{recovery}", fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    axes.set_xlim(_BEFORE, end)
    axes.set_ylim(bottom=-4)
    axes.spines[["top", "right"]].set_visible(False)


def _histogram(values: Sequence[float], bins: Sequence[float]) -> list[int]:
    counts = [0] * (len(bins) - 1)
    for value in values:
        place = int((value - bins[0]) / _BIN)
        if 0 <= place < len(counts):
            counts[place] += 1
    return counts
