"""How a run goes: in turns, with everything named that had to be left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import runner
from benchmarks.nginx import ingress_config, main_config
from benchmarks.programs import BenchmarkError
from benchmarks.results import Report, Result
from benchmarks.scenarios import SCENARIOS, Bench, Figures, Plan, Scenario
from benchmarks.site import Site
from benchmarks.systems import SYSTEMS, Running, Shape, System


class Fake:
    """A system without processes."""

    def __init__(self, name: str, lacking: list[str] | None = None, broken: str = "") -> None:
        self.name = name
        self._lacking = lacking or []
        self._broken = broken

    def missing(self) -> list[str]:
        return self._lacking

    def start(self, site: Site, shape: Shape) -> Running:
        if self._broken:
            raise BenchmarkError(self._broken)
        return Running({}, [], {})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path, tmp_path / "c.pem", tmp_path / "c.key", tmp_path / "ca.pem", {"push": 1, "sink": 2})

    @contextlib.contextmanager
    def surroundings(scenario: Scenario) -> Iterator[Site]:
        yield made

    monkeypatch.setattr(runner, "_surroundings", surroundings)
    return made


def run(scenario: Scenario, *systems: System, repeats: int = 2) -> tuple[Report, list[str]]:
    said: list[str] = []
    report = Report({})
    runner.run_all(runner.Run([scenario], systems, Plan(), repeats, 1, said.append), report)
    return report, said


def test_systems_take_turns(site: Site) -> None:
    turns: list[str] = []

    def measure(bench: Bench) -> Figures:
        turns.append(bench.system)
        return {"p50_ms": float(len(turns))}

    report, _ = run(Scenario("s", "", measure), Fake("a"), Fake("b"))
    assert turns == ["a", "b", "a", "b"]
    assert [(one.system, one.median["p50_ms"]) for one in report.results] == [("a", 2.0), ("b", 3.0)]


def test_what_is_missing_is_named(site: Site) -> None:
    report, said = run(Scenario("s", "", lambda bench: {"x": 1.0}), Fake("a", ["chisel"]), Fake("b", broken="no port"))
    assert report.missing == {"a": "missing: chisel", "s/b": "no port"}
    assert report.results == []
    assert any("chisel" in line for line in said)


def test_a_measure_that_fails_leaves_the_others(site: Site) -> None:
    def measure(bench: Bench) -> Figures:
        if bench.system == "a":
            raise BenchmarkError("it fell over")
        return {"x": 1.0}

    report, _ = run(Scenario("s", "", measure), Fake("a"), Fake("b"))
    assert [one.system for one in report.results] == ["b"]
    assert report.missing == {"s/a": "it fell over"}


def test_a_scenario_may_be_for_some_systems_only(site: Site) -> None:
    report, _ = run(Scenario("s", "", lambda bench: {"x": 1.0}, systems=("b",)), Fake("a"), Fake("b"))
    assert [one.system for one in report.results] == ["b"]


def test_what_is_long_is_repeated_less_often(site: Site) -> None:
    report, _ = run(Scenario("s", "", lambda bench: {"x": 1.0}, is_long=True), Fake("a"), repeats=3)
    assert report.results[0].repeats == 1


def test_results_are_kept_after_each_scenario_and_replace_older_ones(site: Site) -> None:
    report = Report({}, missing={"of-a/a": "it fell over", "a": "missing: b", "other": "stays"})
    kept: list[list[str]] = []
    scenarios = [Scenario(f"of-{name}", "", lambda bench: {"x": 1.0}, systems=(name,)) for name in ("a", "b")]
    runner.run_all(
        runner.Run(
            scenarios, [Fake("a"), Fake("b")], Plan(), 1, 1, lambda line: None, lambda: kept.append(report.scenarios())
        ), report,
    )  # fmt: skip
    assert kept == [["of-a"], ["of-a", "of-b"]]
    assert report.missing == {"other": "stays"}


def test_the_remaining_time_is_told(site: Site) -> None:
    scenarios = [Scenario(name, "", lambda bench: {"x": 1.0}, takes_s=100.0, spans=0.0) for name in ("a", "b")]
    remaining = runner.Remaining(runner.Run(scenarios, [Fake("x")], Plan(), 3, 1, print), [Fake("x")])
    assert remaining.text() == "about 10 min left"
    remaining.finish(scenarios[0])
    remaining.finish(scenarios[1])
    assert remaining.text() == "about 0 s left"


def test_names_are_unique_and_there_is_a_quick_set() -> None:
    names = [one.name for one in SCENARIOS]
    assert len(set(names)) == len(names)
    assert {"qanat", "direct", "nginx+ssh-R", "qanat-compiled", "qanat-workers", "rathole"} <= SYSTEMS.keys()
    assert 2 <= sum(one.is_quick for one in SCENARIOS) <= 6


def test_nginx_stays_in_its_folder(site: Site) -> None:
    http = ingress_config(site, {"push": ("127.0.0.1", 1234)}, 1, 2)
    text = main_config("ingress", site.folder, http)
    assert "location /push { proxy_pass http://push; }" in text
    assert "keepalive 256;" in text
    assert text.count(str(site.folder)) >= 7


def test_a_part_does_not_replace_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import typer

    from benchmarks import cli

    written: list[Path] = []

    def run_all(run: runner.Run, report: Report) -> None:
        report.take([Result.of("small-1", "qanat", [{"x": 1.0}])])
        run.keep()

    monkeypatch.setattr(cli, "run_all", run_all)
    monkeypatch.setattr(Report, "write", lambda self, path, ours: written.append(path))
    app = typer.Typer()
    app.command()(cli.run)
    for options in (["--scenario", "small-1"], ["--quick"], ["--no-plots"], ["--group", "small", "--output", "x.json"]):
        assert CliRunner().invoke(app, options).exit_code == 0
    assert [path.name for path in written] == ["part.json", "quick.json", "latest.json", "x.json"]


@pytest.mark.parametrize("option", ["--scenario", "--system"])
def test_unknown_names_are_refused(option: str) -> None:
    import typer

    from benchmarks.cli import run as command

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [option, "nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
