"""The command line of the fault suite."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from benchmarks import machine
from benchmarks.programs import ROOT
from chaos.fault import Fault
from chaos.faults import FAULTS
from chaos.isolation import isolate_mounts, why_no_disks
from chaos.network import LOOPBACK, Network, networks, why_loopback
from chaos.outcome import Outcome
from chaos.report import Report
from chaos.schedule import Plan, draw, schedule
from chaos.session import Session

FOLDER = ROOT / ".chaos"
TIMELINE = ROOT / "docs" / "operations" / "failures.png"


def run(
    runs: Annotated[int | None, typer.Option(min=1, help="How many; else as many as the time allows.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="No run begins after so many seconds.")] = None,
    seed: Annotated[int | None, typer.Option(help="What the schedule follows from; a new one if not given.")] = None,
    again: Annotated[str | None, typer.Option(help="Only this run, NUMBER:FAULT as it was told.")] = None,
    fault: Annotated[str | None, typer.Option(help="Only these faults, separated by commas.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for the report, and for what failed runs leave.")] = FOLDER,
    record: Annotated[bool, typer.Option(help="Keep the report for the docs, if all is good.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the faults, and play none.")] = False,
) -> None:
    """Plays faults on a live site. The exit status is 0 only if every ledger balances and all came back in time.

    Without --runs and --seconds each fault is played once.
    """
    if list_only:
        _list()
        return
    signal.signal(signal.SIGTERM, _end)
    chosen = _chosen(fault)
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    left_out = {one.name: lack for one in chosen if (lack := one.lacks())}
    playable = [one for one in chosen if one.name not in left_out]
    for name, lack in left_out.items():
        typer.echo(f"chaos: {name} is left out: {lack}")
    until = math.inf if seconds is None else time.monotonic() + seconds
    count = runs if runs is not None else len(playable) if seconds is None else None
    began = time.monotonic()
    if not why_no_disks():
        isolate_mounts()
    with _network() as network:
        session = Session(network, output, lambda outcome: _tell(seed, outcome))
        asyncio.run(session.play(_plans(seed, playable, count, again), until))
    from chaos import plots

    report = Report(seed, machine.describe(), session.outcomes, left_out)
    report.write(output)
    plots.draw(report, output / "timeline.png")
    for line in report.lines():
        typer.echo(line)
    good = sum(one.is_good for one in session.outcomes)
    typer.echo(
        f"chaos: seed={seed} runs={len(session.outcomes)} good={good} in {time.monotonic() - began:.0f} s; "
        f"the report is in {output}"
    )
    if not report.is_good:
        raise typer.Exit(1)
    if record:
        _record(report, output)


def _record(report: Report, output: Path) -> None:
    """The report becomes the one in the docs."""
    from chaos import docs

    docs.KEPT.parent.mkdir(exist_ok=True)
    TIMELINE.parent.mkdir(exist_ok=True)
    shutil.copyfile(output / "report.json", docs.KEPT)
    shutil.copyfile(output / "timeline.png", TIMELINE)
    docs.main([])


@contextlib.contextmanager
def _network() -> Iterator[Network]:
    """Networks of our own where they can be had, else the loopback."""
    if lack := why_loopback():
        typer.echo(f"chaos: no networks, only processes are hurt: {lack}")
        yield LOOPBACK
        return
    with tempfile.TemporaryDirectory(prefix="qanat-chaos-") as folder, networks(Path(folder)) as network:
        yield network


def _plans(seed: int, faults: list[Fault], count: int | None, again: str | None) -> Iterator[Plan]:
    if again is None:
        yield from itertools.islice(schedule(seed, faults), count)
        return
    number, _, name = again.partition(":")
    if not number.isdigit() or name not in FAULTS:
        raise typer.BadParameter(f"--again wants NUMBER:FAULT, such as 31:kill-relay, not {again!r}")
    yield draw(seed, int(number), FAULTS[name])


def _chosen(names: str | None) -> list[Fault]:
    if names is None:
        return list(FAULTS.values())
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in FAULTS]:
        raise typer.BadParameter(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return [FAULTS[name] for name in asked]


def _tell(seed: int, outcome: Outcome) -> None:
    """A line for each run, and for one that failed what was found and how to play it again."""
    recovery = "no recovery" if outcome.recovery is None else f"recovery {outcome.recovery:.2f} s"
    state = "good" if outcome.is_good else "FAILED"
    typer.echo(
        f"chaos: {outcome.text}: {state}, {outcome.acknowledged} of {outcome.pushes} pushes acknowledged, "
        f"{outcome.lost} lost, {outcome.duplicates} twice, {recovery}, slowest {outcome.slowest:.2f} s, "
        f"memory {max(outcome.grown_mib.values(), default=0.0):+.0f} MiB"
    )
    for finding in outcome.findings[:20]:
        typer.echo(f"    {finding}")
    if len(outcome.findings) > 20:
        typer.echo(f"    … and {len(outcome.findings) - 20} more")
    if not outcome.is_good:
        typer.echo(f"    again: make chaos CHAOS_SEED={seed} CHAOS_AGAIN={outcome.number}:{outcome.fault}")


def _list() -> None:
    for name, fault in FAULTS.items():
        lack = fault.lacks()
        typer.echo(f"{name:24} {fault.about}{f' (left out: {lack})' if lack else ''}")


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that every `finally` ends its processes


def main() -> None:
    typer.run(run)
