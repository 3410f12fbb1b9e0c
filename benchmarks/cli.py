"""The command line of the benchmarks."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import machine
from benchmarks.programs import ROOT
from benchmarks.results import Report, differences, load_report
from benchmarks.runner import Run, run_all
from benchmarks.scenarios import SCENARIOS, Plan, Scenario
from benchmarks.systems import OURS, QUICK, SYSTEMS
from benchmarks.table import print_report

LATEST = ROOT / "benchmarks" / "results" / "latest.json"
LATEST_QUICK = LATEST.with_name("quick.json")  # not kept: it would pass for a measurement
LATEST_PART = LATEST.with_name("part.json")  # not kept either: a part does not replace the whole
PLOTS = ROOT / "docs" / "performance"

_QUICK = Plan(seconds=1.0, warm_up=1.0, is_quick=True)


def _names(given: str | None, known: list[str], what: str) -> list[str]:
    if given is None:
        return known
    names = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut the ending short
    raise SystemExit(128 + number)  # so that every `finally` ends the processes


def run(
    quick: Annotated[bool, typer.Option("--quick", help="The main scenarios, briefly: within a minute.")] = False,
    group: Annotated[str | None, typer.Option(help="Only these groups of scenarios, separated by commas.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Only these scenarios, separated by commas.")] = None,
    system: Annotated[str | None, typer.Option(help="Only these systems, separated by commas.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of each measure; 1 when quick, else 3.")] = None,
    long_repeats: Annotated[int, typer.Option(min=1, help="Repeats of what takes long.")] = 1,
    seconds: Annotated[float | None, typer.Option(min=1.0, help="How long each measure lasts; 1 or 3.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the JSON goes; results/latest.json, quick.json, or part.json.")
    ] = None,
    merge_into: Annotated[bool, typer.Option("--merge", help="Into latest.json, whose other results stay.")] = False,
    plots: Annotated[bool, typer.Option(help="Draw the plots and fill in docs/performance.md at the end.")] = True,
    list_only: Annotated[bool, typer.Option("--list", help="List scenarios and systems, measure nothing.")] = False,
) -> None:
    """Measures Qanat beside its peers on this machine. What is measured is written down after each scenario."""
    console = Console()
    if not console.is_terminal:
        console.width = 150  # a file has room for a whole row
    if list_only:
        _list(console)
        return
    signal.signal(signal.SIGTERM, _end)
    systems = [
        SYSTEMS[name] for name in _names(system or (",".join(QUICK) if quick else None), list(SYSTEMS), "system")
    ]
    plan = _QUICK if quick else Plan()
    if seconds is not None:
        plan = Plan(seconds, plan.warm_up, plan.is_quick)
    is_part = not merge_into and any((group, scenario, system))
    is_kept = output is None and not quick and not is_part
    output = output or (LATEST_QUICK if quick else LATEST_PART if is_part else LATEST)
    report = _begin(output, is_merged=merge_into)
    before = list(report.results)
    began = time.monotonic()
    run_all(
        Run(
            _scenarios(group, scenario, is_quick=quick), systems, plan, repeats or (1 if quick else 3), long_repeats,
            partial(_say, console), partial(report.write, output, OURS),
        ),
        report,
    )  # fmt: skip
    if report.results == before:
        console.print_json(json.dumps(report.missing))
        raise typer.Exit(1)
    print_report(report, OURS, console)
    if plots and is_kept:
        from benchmarks.page import update
        from benchmarks.plots import draw

        draw(report, PLOTS)
        update(report)
    console.print(f"measured in {time.monotonic() - began:.0f} s; written to {output}", highlight=False)


def _begin(output: Path, *, is_merged: bool) -> Report:
    """An empty report, or the one that is there, for more results of the same machine."""
    machine_now = machine.describe()
    if not is_merged or not output.exists():
        return Report(machine_now)
    old = load_report(output)
    if differing := differences(old.machine, machine_now):
        raise typer.BadParameter(
            f"{output.name} was measured on another machine ({'; '.join(differing)}), and figures of two machines do "
            "not belong in one table: leave --merge out, or give another --output"
        )
    return Report(machine_now, old.results, old.missing)


def _scenarios(groups: str | None, names: str | None, *, is_quick: bool) -> list[Scenario]:
    wanted = _names(names, [one.name for one in SCENARIOS], "scenario")
    within = _names(groups, list(dict.fromkeys(one.group for one in SCENARIOS)), "group")
    is_all = is_quick and names is None and groups is None
    return [one for one in SCENARIOS if one.name in wanted and one.group in within and (one.is_quick or not is_all)]


def _say(console: Console, line: str) -> None:
    console.print(line, style="dim", highlight=False, markup=False)


def _list(console: Console) -> None:
    for scenario in SCENARIOS:
        mark = " (quick)" if scenario.is_quick else ""
        console.print(f"{scenario.group:8} {scenario.name:24} {scenario.about}{mark}", highlight=False, markup=False)
    for name, system in SYSTEMS.items():
        lacking = system.missing()
        state = f"missing: {', '.join(lacking)}" if lacking else "ready"
        console.print(f"{name:33} {state}", highlight=False, markup=False)


def main() -> None:
    typer.run(run)
