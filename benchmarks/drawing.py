"""How the pictures look: one colour for each system, values on the bars, the machine below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.machine import one_line
from benchmarks.results import Report
from benchmarks.table import text_of

COLOURS: Final = {
    "qanat": "#0f6e8c",
    "qanat-compiled": "#0b3c5d",
    "qanat-workers": "#6fb7c9",
    "nginx+ssh-R": "#e08e0b",
    "rathole": "#b5532d",
    "nginx+chisel": "#8d3b72",
    "frp": "#7a7f45",
    "direct": "#b4bac3",
    "all": "#0f6e8c",
    "relay": "#e08e0b",
    "connector": "#8d3b72",
}
_NAMES: Final = {"direct": "no tunnel", "qanat": "Qanat", "qanat-compiled": "Qanat, compiled",
                 "qanat-workers": "Qanat, 2 workers", "nginx+ssh-R": "nginx + ssh -R", "rathole": "nginx + rathole",
                 "nginx+chisel": "nginx + chisel", "frp": "nginx + frp"}  # fmt: skip
_INK, _QUIET, _GRID = "#22303c", "#6b7680", "#e3e7eb"
_FROM_ZERO: Final = "from zero"
_SIZE: Final = (10.5, 4.9)

Points = Mapping[str, Sequence[tuple[float, float, float] | None]]
"""By system: for each place the median, the least and the greatest, None where it was not measured."""


class Panel(NamedTuple):
    """One pair of axes with its words."""

    axes: Any
    title: str
    along: str
    unit: str
    is_log: bool = False


def new_figure() -> Figure:
    return Figure(figsize=_SIZE, dpi=130, facecolor="white")


def name_of(system: str) -> str:
    """A system as pictures call it."""
    return _NAMES.get(system, system)


def lines(panel: Panel, places: Sequence[str], points: Points) -> None:
    """A line for each system over the places, with its spread as a band."""
    for system, values in points.items():
        there = [(place, value) for place, value in enumerate(values) if value is not None]
        along, colour = [place for place, _ in there], COLOURS[system]
        is_ours = system.startswith("qanat")
        panel.axes.plot(
            along, [value[0] for _, value in there], color=colour, label=name_of(system), marker="o", markersize=4.5,
            linewidth=2.2 if is_ours else 1.5, zorder=3 if is_ours else 2,
            linestyle="--" if system == "direct" else "-",
        )  # fmt: skip
        panel.axes.fill_between(
            along, [value[1] for _, value in there], [value[2] for _, value in there], color=colour, alpha=0.12,
            linewidth=0,
        )  # fmt: skip
    panel.axes.set_xticks(range(len(places)), places)
    panel.axes.set_xlim(-0.25, len(places) - 0.75)
    _finish(panel)


def grouped_bars(panel: Panel, places: Sequence[str], points: Points) -> None:
    """A group of bars at each place, one a system, with values and spreads."""
    width = 0.84 / max(1, len(points))
    for index, (system, values) in enumerate(points.items()):
        for place, value in enumerate(values):
            if value is None:
                continue
            median, low, high = value
            bars = panel.axes.bar(
                [place + (index - (len(points) - 1) / 2) * width], [median], width * 0.9, color=COLOURS[system],
                label=name_of(system), yerr=[[median - low], [high - median]], ecolor=_QUIET, capsize=1.5,
                error_kw={"linewidth": 0.8}, zorder=2,
            )  # fmt: skip
            is_crowded = len(points) * len(places) > 8
            panel.axes.bar_label(
                bars, [text_of(median)], fontsize=6.5, padding=2, color=_INK, rotation=90 if is_crowded else 0
            )
    panel.axes.set_xticks(range(len(places)), places)
    panel.axes.margins(y=0.16)  # for the values on a logarithmic scale
    _finish(panel)


def ratio_bars(panel: Panel, names: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> None:
    """Lying bars from 1 to the ratio, on a logarithmic scale: to the right better, to the left worse."""
    height = 0.8 / max(1, len(values))
    for index, (system, ratios) in enumerate(values.items()):
        for place, ratio in enumerate(ratios):
            if ratio is None:
                continue
            at = place + (index - (len(values) - 1) / 2) * height
            panel.axes.barh([at], [ratio - 1], height * 0.88, left=1, color=COLOURS[system], label=name_of(system),
                            zorder=2)  # fmt: skip
            is_right = ratio >= 1
            panel.axes.annotate(
                f"{ratio:.2f}", (ratio, at), xytext=(3 if is_right else -3, 0), textcoords="offset points",
                ha="left" if is_right else "right", va="center", fontsize=6.5, color=_INK,
            )  # fmt: skip
    panel.axes.axvline(1, color=_INK, linewidth=1.1, zorder=3)
    panel.axes.set_xscale("log", base=2)
    panel.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = panel.axes.get_xlim()
    panel.axes.set_xlim(min(low * 0.7, 0.4), max(high * 1.5, 2.5))
    panel.axes.set_yticks(range(len(names)), names, fontsize=8)
    panel.axes.set_ylim(len(names) - 0.4, -0.6)
    _finish(panel, grid="x")


def _finish(panel: Panel, grid: str = "y") -> None:
    axes = panel.axes
    if panel.is_log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 500 else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    if grid == "y":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        if not panel.is_log:
            axes.set_gid(_FROM_ZERO)
    axes.set_xlabel(panel.along, fontsize=8.5, color=_QUIET)
    axes.set_ylabel(panel.unit, fontsize=8.5, color=_QUIET)
    axes.set_title(panel.title, loc="left", fontsize=9.5, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK, length=0)
    axes.grid(axis=grid, color=_GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)


def _start_at_zero(figure: Figure) -> None:
    """The linear panels, those that share their scale together, with room for what stands on the bars."""
    for axes in figure.axes:
        if axes.get_gid() == _FROM_ZERO:
            tops = [one.dataLim.y1 for one in axes.get_shared_y_axes().get_siblings(axes)]
            axes.set_ylim(0, 1.14 * max([top for top in tops if top > 0], default=1.0))  # -inf where nothing is


def save(figure: Figure, title: str, report: Report, path: Path) -> None:
    """Title above, one legend for all panels, the machine below."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.text(0.012, 0.985, title, va="top", fontsize=13, fontweight="bold", color=_INK)
    figure.legend(
        handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(0.006, 0.935), ncols=min(8, len(handles)),
        frameon=False, fontsize=8.5, labelcolor=_INK, handlelength=1.4, columnspacing=1.5,
    )  # fmt: skip
    figure.text(0.012, 0.012, one_line(report.machine), fontsize=7, color=_QUIET)
    _start_at_zero(figure)
    figure.tight_layout(rect=(0, 0.03, 1, 0.885))
    figure.savefig(path, metadata={"Software": None})
