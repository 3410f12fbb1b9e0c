"""Runs scenarios over systems, interleaved: within each repeat every system has its turn."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.file_server import start_file_server
from benchmarks.network import Network, two_networks, why_no_networks
from benchmarks.nginx import start_target
from benchmarks.programs import ROOT, BenchmarkError
from benchmarks.results import Report, Result
from benchmarks.scenarios import Bench, Figures, Plan, Scenario
from benchmarks.side import Side, wait_for_file
from benchmarks.site import Site, closing, make_certificate
from benchmarks.systems import System

Say = Callable[[str], None]

_START_S = 2.0
"""About how long a system takes to start and to end."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run consists of; what is long is repeated `long_repeats` times. `keep` is called after each scenario."""

    scenarios: Sequence[Scenario]
    systems: Sequence[System]
    plan: Plan
    repeats: int
    long_repeats: int
    say: Say
    keep: Callable[[], None] = lambda: None

    def repeats_of(self, scenario: Scenario) -> int:
        return self.long_repeats if scenario.is_long else self.repeats

    def chosen(self, scenario: Scenario, systems: Sequence[System]) -> list[System]:
        """Those of the systems that the scenario is for."""
        return [system for system in systems if scenario.systems is None or system.name in scenario.systems]


class Remaining:
    """How long the rest will take: by what each scenario expects of itself, and by how right that was so far."""

    def __init__(self, run: Run, systems: Sequence[System]) -> None:
        self._expected = {
            one.name: sum(_START_S + run.repeats_of(one) * one.expected_s(run.plan) for _ in run.chosen(one, systems))
            for one in run.scenarios
        }
        self._began = time.monotonic()
        self._done = 0.0

    def finish(self, scenario: Scenario) -> None:
        """One scenario is over, measured or not."""
        self._done += self._expected.pop(scenario.name, 0.0)

    def text(self) -> str:
        """For people: `about 12 min left`."""
        left = sum(self._expected.values())
        if self._done:
            left *= min(3.0, max(0.3, (time.monotonic() - self._began) / self._done))
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"


def run_all(run: Run, report: Report) -> None:
    """Measures everything; what could not be measured is in `report.missing` with its reason."""
    systems = []
    for system in run.systems:
        report.missing.pop(system.name, None)
        if lacking := system.missing():
            report.missing[system.name] = f"missing: {', '.join(lacking)}"
            run.say(f"{system.name}: left out, missing: {', '.join(lacking)}")
        else:
            systems.append(system)
    remaining = Remaining(run, systems)
    for scenario in run.scenarios:
        chosen = run.chosen(scenario, systems)
        if not chosen:
            continue
        run.say(f"{scenario.name}: {scenario.about} ({remaining.text()})")
        for name in [name for name in report.missing if name.split("/")[0] == scenario.name]:
            del report.missing[name]
        if scenario.link is not None and (reason := why_no_networks()):
            report.missing[scenario.name] = reason
            run.say(f"{scenario.name}: left out, {reason}")
        else:
            _try_scenario(run, scenario, chosen, report)
        remaining.finish(scenario)
        run.keep()


def _try_scenario(run: Run, scenario: Scenario, systems: Sequence[System], report: Report) -> None:
    try:
        report.take(_run_scenario(run, scenario, systems, report))
    except (BenchmarkError, OSError) as error:
        report.missing[scenario.name] = str(error)
        run.say(f"{scenario.name}: {error}")


def _run_scenario(run: Run, scenario: Scenario, systems: Sequence[System], report: Report) -> list[Result]:
    measures: dict[str, list[Figures]] = {}
    with _surroundings(scenario) as site, contextlib.ExitStack() as stack:
        benches = []
        for system in systems:
            own = stack.enter_context(closing(site.subsite(system.name)))
            try:
                running = system.start(own, scenario.shape)
            except BenchmarkError as error:
                report.missing[f"{scenario.name}/{system.name}"] = str(error)
                run.say(f"{scenario.name} {system.name}: does not start: {error}")
                own.close()
                continue
            benches.append(Bench(system.name, own, running, run.plan))
        for repeat in range(run.repeats_of(scenario)):
            for bench in benches:
                run.say(f"  {repeat + 1}/{run.repeats_of(scenario)} {bench.system}")
                try:
                    measures.setdefault(bench.system, []).append(scenario.measure(bench))
                    bench.site.check()
                except (BenchmarkError, OSError) as error:
                    report.missing[f"{scenario.name}/{bench.system}"] = str(error)
                    run.say(f"{scenario.name} {bench.system}: {error}")
    return [Result.of(scenario.name, system, figures) for system, figures in measures.items() if figures]


@contextlib.contextmanager
def _surroundings(scenario: Scenario) -> Iterator[Site]:
    """A folder, the certificate, the targets, and two networks if the scenario wants them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qanat-bench-")))
        folder.chmod(0o755)  # sshd reads its keys there as another user
        network = Network(Side(), Side())
        if scenario.link is not None:
            network = stack.enter_context(two_networks(folder, scenario.link))
        certificate, key, authority = make_certificate(folder)
        site = Site(folder, certificate, key, authority, {}, network.cloud, network.premises)
        stack.enter_context(closing(site))
        site.targets = {"push": start_target(site), "sink": _start_sink(site)}
        if scenario.has_file_server:
            site.file_server = start_file_server(site)
        yield site


def _start_sink(site: Site) -> int:
    path = site.folder / "sink.port"
    argv = [sys.executable, "-m", "benchmarks.sink", str(path), site.premises.listen_address]
    process = site.start(site.premises, argv, "sink", {"PYTHONPATH": str(ROOT)})
    return int(wait_for_file(path, process))
