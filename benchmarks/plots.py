"""The figures as pictures for the documentation: what they say is decided here, how they look in `drawing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from matplotlib.figure import Figure

from benchmarks.drawing import Panel, grouped_bars, lines, name_of, new_figure, ratio_bars, save
from benchmarks.results import Report, Result

_IN_FLIGHT: Final = {"1": "small-1", "16": "small-16", "64": "small-64", "256": "small-256"}
_PERCENTILES: Final = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms", "p99.9": "p999_ms"}
_PEERS: Final = ("nginx+ssh-R", "rathole", "nginx+chisel", "frp")
_ALL: Final = ("qanat", "qanat-compiled", "qanat-workers", *_PEERS)

Point = tuple[float, float, float]
"""A median, and the least and the greatest of the repeats."""


class Plot(NamedTuple):
    """One picture. `needs` are scenarios of which one must have been measured."""

    file: str
    title: str
    needs: tuple[str, ...]
    draw: Callable[[Figure, Report], None]


def point(result: Result | None, name: str) -> Point | None:
    """The figure with its spread, None where it is not there."""
    if result is None or name not in result.median:
        return None
    return (result.median[name], *result.spread[name])


def _over(report: Report, scenarios: Sequence[str], name: str, systems: Sequence[str]) -> dict[str, list[Point | None]]:
    """For each system that has any of it: the figure in each scenario."""
    found = {system: [point(report.find(one, system), name) for one in scenarios] for system in systems}
    return {system: points for system, points in found.items() if any(points)}


def _in_flight(name: str, unit: str) -> Callable[[Figure, Report], None]:
    def draw(figure: Figure, report: Report) -> None:
        points = _over(report, [*_IN_FLIGHT.values()], name, _ALL)
        lines(Panel(figure.subplots(), "", "pushes in flight", unit), [*_IN_FLIGHT], points)

    return draw


def _percentiles(figure: Figure, report: Report) -> None:
    panels = {
        "1 in flight": "small-1",
        "16 in flight": "small-16",
        "64 in flight": "small-64",
        "1,000 due each second": "steady-1000",
    }
    every = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, scenario) in zip(every, panels.items(), strict=True):
        found = {
            system: [point(report.find(scenario, system), name) for name in _PERCENTILES.values()]
            for system in (*_ALL, "direct")
        }
        points = {system: values for system, values in found.items() if any(values)}
        lines(Panel(axes, title, "", "ms" if axes is every[0] else "", is_log=True), [*_PERCENTILES], points)


_RATIOS: Final = (
    ("CPU per push, 1 in flight", "small-1", "cpu_us_per_push", False),
    ("CPU per push, 16 in flight", "small-16", "cpu_us_per_push", False),
    ("CPU per push, 64 in flight", "small-64", "cpu_us_per_push", False),
    ("pushes per second, 16 in flight", "small-16", "pushes_per_s", True),
    ("pushes per second, 64 in flight", "small-64", "pushes_per_s", True),
    ("p50, 16 in flight", "small-16", "p50_ms", False),
    ("p99, 16 in flight", "small-16", "p99_ms", False),
    ("1 MiB bodies, MB/s", "bulk-1mib", "mb_per_s", True),
    ("1 MiB bodies, MB per CPU second", "bulk-1mib", "mb_per_cpu_s", True),
    ("64 MiB over 100 ms, MB/s", "long-fat", "mb_per_s", True),
    ("p99 beside a 1 GB body", "small-beside-bulk", "p99_ms", False),
    ("p99 beside bulk at 10 Mbit/s", "slow-link", "p99_ms", False),
)
"""What is compared, and whether more of it is better."""


def _ratios(figure: Figure, report: Report) -> None:
    peers = [peer for peer in _PEERS if any(report.find(one[1], peer) for one in _RATIOS)]
    every = figure.subplots(1, max(1, len(peers)), sharey=True, squeeze=False)[0]
    for axes, peer in zip(every, peers, strict=False):
        values: dict[str, list[float | None]] = {}
        for system in ("qanat", "qanat-compiled"):
            ratios = [report.ratio(scenario, name, system, peer) for _, scenario, name, _ in _RATIOS]
            better = [
                None if one is None else one if more else 1 / one
                for one, (*_, more) in zip(ratios, _RATIOS, strict=True)
            ]
            if any(one is not None for one in better):
                values[system] = better
        ratio_bars(Panel(axes, f"beside {name_of(peer)}", "times better", ""), [one[0] for one in _RATIOS], values)


def _bulk(figure: Figure, report: Report) -> None:
    left, right, far = figure.subplots(1, 3, width_ratios=(2, 2, 1))
    titles, scenarios = ["plain ingress", "TLS ingress"], ["bulk-1mib", "bulk-1mib-tls"]
    for axes, title, name in ((left, "MB per second", "mb_per_s"), (right, "MB per CPU second", "mb_per_cpu_s")):
        panel = Panel(axes, f"1 MiB bodies, 8 at once: {title}", "", "")
        grouped_bars(panel, titles, _over(report, scenarios, name, _ALL))
    points = _over(report, ["long-fat"], "mb_per_s", (*_ALL, "direct"))
    grouped_bars(Panel(far, "64 MiB, 100 ms: MB/s", "", ""), [""], points)


def _beside(figure: Figure, report: Report) -> None:
    both = {"on loopback, 1 GB body": "small-beside-bulk", "at 10 Mbit/s and 50 ms, 4 MiB bodies": "slow-link"}
    for axes, (title, scenario) in zip(figure.subplots(1, 2), both.items(), strict=True):
        names = {
            "p50 alone": "alone_p50_ms",
            "p50 beside": "p50_ms",
            "p99 alone": "alone_p99_ms",
            "p99 beside": "p99_ms",
        }
        found = {
            system: [point(report.find(scenario, system), name) for name in names.values()]
            for system in _ALL
        }  # fmt: skip
        points = {system: values for system, values in found.items() if any(values)}
        grouped_bars(Panel(axes, title, "", "ms", is_log=True), [*names], points)


def _burst(figure: Figure, report: Report) -> None:
    names = {"kept": "burst-4000-kept", "new": "burst-4000-new", "new TLS": "burst-4000-new-tls"}
    for axes, (title, figure_name) in zip(
        figure.subplots(1, 2), {"p50": "p50_ms", "p99": "p99_ms"}.items(), strict=True
    ):
        points = _over(report, [*names.values()], figure_name, (*_ALL, "direct"))
        grouped_bars(Panel(axes, title, "connections", "ms", is_log=True), [*names], points)


def _scale(figure: Figure, report: Report) -> None:
    times = (1, 10, 100, 1000)
    labels = [f"×{count:,}" for count in times]
    panels = (("routes and senders in the config", "scale"), ("tunnels that take pushes in turn", "tunnels"))
    for axes, (title, prefix) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        scenarios = [f"{prefix}-{count}" for count in times]
        rows = {
            "all": _over(report, scenarios, "cpu_us_per_push", ("qanat",)).get("qanat", []),
            "relay": _over(report, scenarios, "relay_cpu_us_per_push", ("qanat",)).get("qanat", []),
            "connector": _over(report, scenarios, "connector_cpu_us_per_push", ("qanat",)).get("qanat", []),
        }
        points = {name: values for name, values in rows.items() if values}
        lines(Panel(axes, title, "", "µs of CPU per push" if prefix == "scale" else ""), labels, points)


_SMALL: Final = tuple(_IN_FLIGHT.values())

PLOTS: Final = (
    Plot("ratios.png", "How many times better Qanat is; left of the line: worse", _SMALL, _ratios),
    Plot("cpu-per-push.png", "CPU per 2 KiB push of all processes on the way (less is better)", _SMALL,
         _in_flight("cpu_us_per_push", "µs")),
    Plot("pushes-per-second.png", "2 KiB pushes per second (more is better)", _SMALL,
         _in_flight("pushes_per_s", "pushes/s")),
    Plot("latency.png", "Latency of 2 KiB pushes (less is better)", (*_SMALL, "steady-1000"), _percentiles),
    Plot("bulk.png", "Bulk (more is better)", ("bulk-1mib", "bulk-1mib-tls", "long-fat"), _bulk),
    Plot("beside-bulk.png", "2 KiB pushes beside bulk (less is better)", ("small-beside-bulk", "slow-link"), _beside),
    Plot("burst.png", "4,000 pushes within a second (less is better)",
         ("burst-4000-kept", "burst-4000-new", "burst-4000-new-tls"), _burst),
    Plot("scale.png", "CPU per push as things grow, 16 in flight", ("scale-10", "tunnels-1"), _scale),
)  # fmt: skip


def is_drawn(plot: Plot, report: Report) -> bool:
    """Whether there is anything to be seen in it."""
    return any(report.find(scenario, "qanat") is not None for scenario in plot.needs)


def draw(report: Report, folder: Path) -> list[Path]:
    """Draws each picture for which there are figures, removes the others; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [plot for plot in PLOTS if is_drawn(plot, report)]
    for old in folder.glob("*.png"):
        if old.name not in {plot.file for plot in wanted}:
            old.unlink()
    for plot in wanted:
        figure = new_figure()
        plot.draw(figure, report)
        save(figure, plot.title, report, folder / plot.file)
    return [folder / plot.file for plot in wanted]
