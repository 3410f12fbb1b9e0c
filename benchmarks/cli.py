"""The command line of the benchmarks."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import machine
from benchmarks.programs import ROOT
from benchmarks.results import Report, load_report, merge
from benchmarks.runner import Run, run_all
from benchmarks.scenarios import SCENARIOS, Plan
from benchmarks.systems import OURS, SYSTEMS
from benchmarks.table import print_report

LATEST = ROOT / "benchmarks" / "results" / "latest.json"
LATEST_QUICK = LATEST.with_name("quick.json")  # not kept: it would pass for a measurement
PLOTS = ROOT / "docs" / "performance"

_QUICK = Plan(seconds=2.0, warm_up=1.0, is_quick=True)


def _names(given: str | None, known: list[str], what: str) -> list[str]:
    if given is None:
        return known
    names = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that every `finally` ends the processes


def run(
    quick: Annotated[bool, typer.Option("--quick", help="The main scenarios, briefly: within a minute.")] = False,
    scenario: Annotated[str | None, typer.Option(help="Only these scenarios, separated by commas.")] = None,
    system: Annotated[str | None, typer.Option(help="Only these systems, separated by commas.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of each measure; 1 when quick, else 5.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1.0, help="How long each measure lasts; 2 or 5.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the JSON goes; results/latest.json, or quick.json.")
    ] = None,
    merge_into: Annotated[bool, typer.Option("--merge", help="Keep the output's other results.")] = False,
    plots: Annotated[bool, typer.Option(help="Draw docs/performance/*.png when the run is whole.")] = True,
    list_only: Annotated[bool, typer.Option("--list", help="List scenarios and systems, measure nothing.")] = False,
) -> None:
    """Measures Qanat beside its peers on this machine."""
    console = Console()
    if not console.is_terminal:
        console.width = 150  # a file has room for a whole row
    if list_only:
        _list(console)
        return
    signal.signal(signal.SIGTERM, _end)
    names = _names(scenario, [one.name for one in SCENARIOS], "scenario")
    chosen = [one for one in SCENARIOS if one.name in names and (one.is_quick or not quick or scenario)]
    systems = [SYSTEMS[name] for name in _names(system, list(SYSTEMS), "system")]
    plan = _QUICK if quick else Plan()
    if seconds is not None:
        plan = Plan(seconds, plan.warm_up, plan.is_quick)
    output = output or (LATEST_QUICK if quick else LATEST)
    report = Report(machine.describe())
    began = time.monotonic()
    run_all(Run(chosen, systems, plan, repeats or (1 if quick else 5), lambda line: _say(console, line)), report)
    if not report.results:
        console.print_json(json.dumps(report.missing))
        raise typer.Exit(1)
    if merge_into and output.exists():
        report.results = merge(load_report(output).results, report.results)
    report.write(output, OURS)
    print_report(report, OURS, console)
    if plots and not quick:
        from benchmarks.plots import draw

        draw(report, PLOTS)
    console.print(f"measured in {time.monotonic() - began:.0f} s; written to {output}", highlight=False)


def _say(console: Console, line: str) -> None:
    console.print(line, style="dim", highlight=False, markup=False)


def _list(console: Console) -> None:
    for scenario in SCENARIOS:
        mark = " (quick)" if scenario.is_quick else ""
        console.print(f"{scenario.name:22} {scenario.about}{mark}", highlight=False, markup=False)
    for name, system in SYSTEMS.items():
        lacking = system.missing()
        state = f"missing: {', '.join(lacking)}" if lacking else "ready"
        console.print(f"{name:22} {state}", highlight=False, markup=False)


def main() -> None:
    typer.run(run)
