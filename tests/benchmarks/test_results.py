"""Medians, spreads, ratios and the JSON that others read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.load.figures import Load, percentile
from benchmarks.load.wrk import parse_output, script
from benchmarks.plots import draw
from benchmarks.programs import BenchmarkError
from benchmarks.results import Report, Result, differences, load_report, merge
from benchmarks.scenarios.base import figures_of
from benchmarks.table import cell, text_of

MACHINE = {
    "cores": 2,
    "cpu": "C",
    "memory_gib": 4,
    "system": "S",
    "kernel": "6.1",
    "python": "3.11",
    "time": "2026-01-01",
}


def report() -> Report:
    return Report(
        MACHINE,
        [
            Result.of("small-16", "qanat", [{"pushes_per_s": 30.0, "p50_ms": 3.0}, {"pushes_per_s": 10.0}]),
            Result.of("small-16", "nginx+ssh-R", [{"pushes_per_s": 10.0, "p50_ms": 5.0, "failed": 0.0}]),
            Result.of("small-16", "direct", [{"p50_ms": 1.0}]),
        ],
    )


def test_median_and_spread() -> None:
    result = Result.of(
        "s", "x", [{"p50_ms": 3.0}, {"p50_ms": 1.0}, {"p50_ms": 2.0, "rss_mib": 7.0}, {"p50_ms": math.nan}]
    )
    assert result.median == {"p50_ms": 2.0, "rss_mib": 7.0}
    assert result.spread == {"p50_ms": (1.0, 3.0), "rss_mib": (7.0, 7.0)}


def test_ratios_are_ours_by_theirs_and_latency_also_without_the_floor() -> None:
    ratios = report().ratios("qanat")
    assert ratios["small-16"]["nginx+ssh-R"] == {"pushes_per_s": 2.0, "p50_ms": 0.6, "added_p50_ms": 0.5}
    assert ratios["small-16"]["direct"] == {"p50_ms": 3.0}


def test_our_other_builds_have_ratios_of_their_own_and_are_no_peers(tmp_path: Path) -> None:
    found = report()
    found.take([Result.of("small-16", "qanat-compiled", [{"pushes_per_s": 40.0}])])
    content = found.as_json("qanat")
    assert content["ratios"]["small-16"].keys() == {"nginx+ssh-R", "direct"}
    assert content["ratios_of"] == {
        "qanat-compiled": {"small-16": {"nginx+ssh-R": {"pushes_per_s": 4.0}, "direct": {}}}
    }
    assert found.ratio("small-16", "added_p50_ms", "qanat", "nginx+ssh-R") == 0.5


def test_figures_of_two_machines_do_not_mix() -> None:
    assert differences(MACHINE, MACHINE | {"time": "later", "load_before": 3}) == []
    assert differences(MACHINE, MACHINE | {"cores": 8}) == ["cores was 2, is 8"]


def test_json_has_the_promised_shape_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    report().write(path, "qanat")

    content = json.loads(path.read_text())
    assert {"machine", "results", "ratios"} <= content.keys()
    assert content["results"][0] | {"spread": None} == {
        "scenario": "small-16", "system": "qanat", "repeats": 2, "pushes_per_s": 20.0, "p50_ms": 3.0, "spread": None,
    }  # fmt: skip
    assert content["ratios"]["small-16"]["nginx+ssh-R"]["pushes_per_s"] == 2.0
    assert load_report(path).results == report().results


def test_new_results_replace_old_ones() -> None:
    old = report().results
    new = [Result.of("small-16", "qanat", [{"p50_ms": 9.0}]), Result.of("bulk", "qanat", [{"p50_ms": 1.0}])]
    merged = merge(old, new)
    assert [(one.scenario, one.system) for one in merged] == [
        ("small-16", "qanat"), ("small-16", "nginx+ssh-R"), ("small-16", "direct"), ("bulk", "qanat"),
    ]  # fmt: skip
    assert merged[0].median == {"p50_ms": 9.0}


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.12345, "0.123"), (12.34, "12.3"), (12345.6, "12,346")])
def test_figures_for_people(value: float, text: str) -> None:
    assert text_of(value) == text


def test_cells_show_the_spread() -> None:
    assert cell(report().results[0], "pushes_per_s") == "20 ±50%"
    assert cell(report().results[0], "rss_mib") == "–"


def test_plots_are_drawn_from_what_there_is(tmp_path: Path) -> None:
    names = [path.name for path in draw(report(), tmp_path)]
    assert "pushes-per-second.png" in names
    assert "bulk.png" not in names
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_percentile_of_the_nearest_rank() -> None:
    assert percentile([1, 2, 3, 4], 0.5) == 2
    assert percentile([1, 2, 3, 4], 0.999) == 4
    assert math.isnan(percentile([], 0.5))


def test_figures_of_a_load() -> None:
    load = Load(2.0, 1000, 3, 1.0, 2.0, 3.0, 4.0)
    figures = figures_of(load, cpu_s=0.05, push_bytes=2000)
    assert figures["pushes_per_s"] == 500
    assert figures["cpu_us_per_push"] == pytest.approx(50)
    assert figures["mb_per_s"] == 1.0
    assert figures["mb_per_cpu_s"] == pytest.approx(40)
    assert "cpu_us_per_push" not in figures_of(load, cpu_s=0.0, push_bytes=2000)


def test_wrk_is_told_and_understood() -> None:
    assert '"q", 2048)' in script(2048)
    line = (
        '{"us":2000000,"requests":100,"connect":0,"read":1,"write":0,"status":4,"timeout":0,'
        '"p50":1500,"p90":2000,"p99":3000,"p999":4000}'
    )
    load = parse_output(f"Running 2s test\n{line}\n")
    assert (load.seconds, load.pushes, load.failed, load.p50_ms, load.p999_ms) == (2.0, 96, 5, 1.5, 4.0)
    assert load.failures == {"read": 1, "status": 4}


def test_wrk_without_figures_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="no figures"):
        parse_output("unable to connect")
