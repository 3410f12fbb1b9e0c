"""The figures as pictures for the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.machine import one_line
from benchmarks.results import Report, Result
from benchmarks.table import text_of

_COLOURS = {
    "qanat": "#1f6f8b",
    "nginx+ssh-R": "#d98e04",
    "nginx+chisel": "#a23e48",
    "frp": "#6c6f7d",
    "rathole": "#8a5a44",
    "direct": "#c9ced6",
}


class Plot(NamedTuple):
    """One picture: bars of one figure over some scenarios."""

    file: str
    title: str
    figure: str
    unit: str
    scenarios: tuple[str, ...]
    is_log: bool = False
    with_direct: bool = False


_SMALL = ("small-1", "small-16", "small-64", "small-256")
_BULK = ("bulk-1mib", "bulk-1mib-tls")
_BURST = ("burst-4000-kept", "burst-4000-new", "burst-4000-new-tls")

PLOTS = (
    Plot("cpu-per-push.png", "CPU per 2 KiB push (less is better)", "cpu_us_per_push", "µs", _SMALL),
    Plot("pushes-per-second.png", "2 KiB pushes per second (more is better)", "pushes_per_s", "pushes/s", _SMALL),
    Plot("latency-p50.png", "Latency, median (less is better)", "p50_ms", "ms", _SMALL[:3], with_direct=True),
    Plot("latency-p99.png", "Latency, 99 of 100 (less is better)", "p99_ms", "ms", (*_SMALL[:3], "steady-1000"),
         is_log=True, with_direct=True),
    Plot("bulk.png", "1 MiB bodies, 8 at once (more is better)", "mb_per_s", "MB/s", _BULK),
    Plot("bulk-per-cpu.png", "1 MiB bodies: MB per CPU second (more is better)", "mb_per_cpu_s", "MB/CPU s", _BULK),
    Plot("beside-bulk.png", "2 KiB pushes beside bulk: p99 (less is better)", "p99_ms", "ms",
         ("small-beside-bulk", "slow-link"), is_log=True),
    Plot("burst.png", "4,000 pushes in a second: p99 (less is better)", "p99_ms", "ms", _BURST, is_log=True),
    Plot("long-fat.png", "64 MiB over 100 ms at 1 Gbit/s (more is better)", "mb_per_s", "MB/s", ("long-fat",),
         with_direct=True),
)  # fmt: skip


def draw(report: Report, folder: Path) -> list[Path]:
    """Draws each picture for which there are figures; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / plot.file for plot in PLOTS if _draw(plot, report, folder / plot.file)]


def _draw(plot: Plot, report: Report, path: Path) -> bool:
    scenarios = [name for name in plot.scenarios if name in report.scenarios()]
    systems = _systems(plot, report, scenarios)
    if not scenarios or not systems:
        return False
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(systems)
    for index, system in enumerate(systems):
        _bars(axes, plot, [report.find(name, system) for name in scenarios], index * width, width, system)
    axes.set_xticks([place + width * (len(systems) - 1) / 2 for place in range(len(scenarios))], scenarios)
    axes.set_ylabel(plot.unit)
    axes.set_title(plot.title, loc="left")
    if plot.is_log:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.supxlabel(one_line(report.machine), fontsize=7, color="#666666")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return True


def _systems(plot: Plot, report: Report, scenarios: list[str]) -> list[str]:
    found = [one.system for one in report.results if one.scenario in scenarios and plot.figure in one.median]
    names = list(dict.fromkeys(found))
    return [name for name in _COLOURS if name in names and (plot.with_direct or name != "direct")]


def _bars(axes: Any, plot: Plot, results: list[Result | None], offset: float, width: float, system: str) -> None:
    """One system's bars, with their values and the least and greatest of the repeats."""
    for place, result in enumerate(results):
        if result is None or plot.figure not in result.median:
            continue
        value = result.median[plot.figure]
        low, high = result.spread[plot.figure]
        label = system if place == next(i for i, one in enumerate(results) if one is not None) else None
        bars = axes.bar(
            [place + offset], [value], width * 0.92, color=_COLOURS[system], label=label,
            yerr=[[max(0.0, value - low)], [max(0.0, high - value)]], ecolor="#444444", capsize=2,
        )  # fmt: skip
        axes.bar_label(bars, [text_of(value)], fontsize=7, padding=2)
