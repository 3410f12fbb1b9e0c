"""The bars, and the tables of docs/performance.md that are made of the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import BARS, Bar, figure, grown, ratio, undelivered
from benchmarks.page import BLOCKS, KEPT, NOTHING, PAGE, markdown, updated
from benchmarks.plots import PLOTS, draw
from benchmarks.results import Report, Result, load_report
from benchmarks.scenarios import SCENARIOS
from benchmarks.systems import SYSTEMS

MACHINE = {
    "cores": 2, "cpu": "C", "memory_gib": 4, "system": "S", "kernel": "6.1", "python": "3.11", "time": "2026-01-01",
    "congestion_control": "bbr", "load_before": 0.1, "packages": {"uvloop": "1"},
    "programs": {"nginx": "nginx version: nginx/1.22.1", "rathole": " 0.5.0"},
}  # fmt: skip


def report(**scenarios: dict[str, dict[str, float]]) -> Report:
    """Of {scenario: {system: figures}}, underscores for hyphens in the scenario's name."""
    results = [
        Result.of(name.replace("_", "-"), system, [figures])
        for name, systems in scenarios.items()
        for system, figures in systems.items()
    ]
    return Report(MACHINE, results, {"frp": "missing: frps, frpc"})


def everything() -> Report:
    """Each scenario over each of its systems, with every figure that any table asks for."""
    names = [
        "pushes_per_s", "cpu_us_per_push", "mb_per_s", "mb_per_cpu_s", "p50_ms", "p90_ms", "p99_ms", "p999_ms",
        "failed", "lost", "delivered", "rss_mib", "kib_per_tunnel", "p99_ratio", "alone_p50_ms", "alone_p99_ms",
        "relay_cpu_us_per_push", "connector_cpu_us_per_push",
    ]  # fmt: skip
    return Report(
        MACHINE,
        [
            Result.of(scenario.name, system, [dict.fromkeys(names, 10.0 + number)])
            for scenario in SCENARIOS
            for number, system in enumerate(SYSTEMS)
            if scenario.systems is None or system in scenario.systems
        ],
    )


def row_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_bars_are_judged_both_ways() -> None:
    small = {"qanat": {"cpu_us_per_push": 90.0, "pushes_per_s": 90.0}, "nginx+ssh-R": {"cpu_us_per_push": 100.0,
             "pushes_per_s": 100.0}, "qanat-compiled": {"cpu_us_per_push": 120.0, "pushes_per_s": 120.0}}  # fmt: skip
    text = BLOCKS["bars"](report(small_16=small))
    assert row_of(text, "| CPU per 2 KiB push").endswith("| ≤ 1 | **0.9** | **1.2** (missed) |")
    assert row_of(text, "| pushes per second").endswith("| ≥ 1 | **0.9** (missed) | **1.2** |")
    assert "chisel | ≤ 0.75 | not measured | – |" in text
    assert "idle tunnel" not in text


def test_what_was_not_measured_is_no_figure() -> None:
    empty = report()
    assert all(bar.value(empty, "qanat") is None for bar in BARS)
    assert figure("a", "x")(report(a={"qanat": {"x": 0.0}}), "qanat") == 0.0
    assert ratio("a", "x", "direct")(report(a={"qanat": {"x": 1.0}}), "qanat") is None


def test_losses_and_growth() -> None:
    found = report(b={"qanat": {"failed": 1.0, "lost": 2.0, "relay_rss_mib": 9.0, "before_relay_rss_mib": 5.0}})
    assert undelivered("b")(found, "qanat") == 3.0
    assert grown("b")(found, "qanat") == 4.0
    assert Bar("", undelivered("b"), 0.0).wanted == "none"


def test_the_machine_and_what_it_lacks_are_named() -> None:
    text = BLOCKS["machine"](report())
    assert "2 cores of C" in text
    assert "nginx/1.22.1, rathole 0.5.0" in text
    assert "left out: frp" in text


def test_a_table_shows_only_rows_with_figures() -> None:
    assert markdown(("", "x"), [("a", ""), ("b", "1")]) == "|  | x |\n|---|---|\n| b | 1 |"
    assert markdown(("", "x"), [("a", "")]) == NOTHING


def test_sizing_says_what_a_core_carries() -> None:
    cost = {"relay_cpu_us_per_push": 40.0, "connector_cpu_us_per_push": 100.0}
    text = BLOCKS["sizing"](report(small_16={"qanat": cost}))
    assert row_of(text, "| 2 KiB pushes, 16 in flight, qanat |").endswith("| 25,000 /s | 10,000 /s |")


def test_every_table_and_plot_has_its_figures(tmp_path: Path) -> None:
    full = everything()
    assert [name for name, block in BLOCKS.items() if NOTHING in block(full)] == []
    assert len(draw(full, tmp_path)) == len(PLOTS)


def test_figures_are_those_of_scenarios_that_there_are() -> None:
    names = {one.name for one in SCENARIOS}
    assert {need for plot in PLOTS for need in plot.needs} <= names


def test_a_plot_without_figures_goes_away(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"")
    draw(report(small_16={"qanat": {"cpu_us_per_push": 1.0}}), tmp_path)
    assert not (tmp_path / "old.png").exists()
    assert (tmp_path / "cpu-per-push.png").stat().st_size > 1000


def test_the_page_asks_for_every_table_and_says_what_the_results_say() -> None:
    page = PAGE.read_text()
    assert updated(page, load_report(KEPT)) == page
    with pytest.raises(ValueError, match="marks"):
        updated("<!-- figures: nonsense -->\n<!-- end of figures -->", report())


def test_memory_of_a_connection_is_a_difference() -> None:
    rss = {"relay_rss_mib": 80.0, "connector_rss_mib": 70.0}
    found = report(small_1={"qanat": rss}, burst_4000_kept={"qanat": {"relay_rss_mib": 180.0}})
    text = BLOCKS["memory"](found)
    assert row_of(text, "| a sender's TLS connection").endswith("| 102 KiB |")
    assert row_of(text, "| the connector's program").endswith("| 70 MiB |")
