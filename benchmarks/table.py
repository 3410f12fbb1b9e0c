"""The report as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.results import Report, Result

COLUMNS = {
    "pushes_per_s": "pushes/s",
    "cpu_us_per_push": "CPU µs/push",
    "mb_per_s": "MB/s",
    "mb_per_cpu_s": "MB/CPU s",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "rss_mib": "RSS MiB",
    "failed": "failed",
}


def text_of(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell(result: Result, name: str) -> str:
    """A median with half its spread in percent of it: `123 ±4%`."""
    if name not in result.median:
        return "–"
    low, high = result.spread[name]
    median = result.median[name]
    around = f" ±{50 * (high - low) / median:.0f}%" if result.repeats > 1 and median else ""
    return text_of(median) + around


def other_figures(result: Result) -> str:
    """The figures that have no column of their own."""
    return " ".join(f"{name}={text_of(value)}" for name, value in result.median.items() if name not in COLUMNS)


def print_report(report: Report, ours: str, console: Console) -> None:
    """One table a scenario, with the ratios to each peer below it."""
    ratios = {one: report.ratios(one) for one in (ours, *report.variants(ours))}
    for scenario in report.scenarios():
        table = Table(title=scenario, title_justify="left")
        table.add_column("system", no_wrap=True)
        for title in COLUMNS.values():
            table.add_column(title, justify="right", no_wrap=True)
        results = [result for result in report.results if result.scenario == scenario]
        for result in results:
            table.add_row(result.system, *(cell(result, name) for name in COLUMNS))
        console.print(table)
        for result in results:
            if more := other_figures(result):
                console.print(f"  {result.system}: {more}", highlight=False)
        for one, peers in ratios.items():
            for peer, figures in peers.get(scenario, {}).items():
                shown = " ".join(f"{name}={text_of(value)}" for name, value in figures.items() if name in COLUMNS)
                console.print(f"  {one} ÷ {peer}: {shown}", highlight=False)
    for name, reason in report.missing.items():
        console.print(f"left out: {name}: {reason}", highlight=False, markup=False)
