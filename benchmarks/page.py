"""The tables in docs/performance.md, made of results/latest.json, so that the two can never disagree.

python -m benchmarks.page [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from benchmarks.bars import BARS, Bar, figure
from benchmarks.machine import one_line
from benchmarks.plots import PLOTS, is_drawn
from benchmarks.programs import ROOT
from benchmarks.results import Report, load_report
from benchmarks.scenarios.mixed import BURST_CONNECTIONS
from benchmarks.table import text_of

KEPT: Final = ROOT / "benchmarks" / "results" / "latest.json"
PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
NOTHING: Final = "Not measured yet: `make bench`."

_OURS: Final = ("qanat", "qanat-compiled")
_SYSTEMS: Final = (
    "qanat",
    "qanat-compiled",
    "qanat-workers",
    "nginx+ssh-R",
    "rathole",
    "nginx+chisel",
    "frp",
    "direct",
)
_SMALL: Final = ("small-1", "small-16", "small-64", "small-256")


class Column(NamedTuple):
    """A figure as a column; `unit` follows the number."""

    title: str
    name: str
    unit: str = ""


def cell(report: Report, scenario: str, system: str, column: Column) -> str:
    """A median for people, empty where there is none; a count of nothing is 0."""
    found = report.find(scenario, system)
    value = found.median.get(column.name) if found is not None else None
    if value is None or (system == "direct" and column.unit == "MiB"):
        return ""
    if column.unit == "%":
        return f"{100 * value:.3g} %"
    return text_of(value) + (f" {column.unit}" if column.unit else "")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; rows without any figure after the first cell are left out."""
    told = [row for row in rows if any(row[1:])]
    if not told:
        return NOTHING
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(one or "–" for one in row) + " |" for row in told)])


def machine(report: Report) -> str:
    """Where and when, and with which programs."""
    about = report.machine
    programs = [_program(name, version) for name, version in about.get("programs", {}).items()]
    packages = [f"{name} {version}" for name, version in about.get("packages", {}).items()]
    before = about["load_before"]
    missing = [name for name, why in report.missing.items() if why.startswith("missing:")]
    text = f"{one_line(about)}; congestion control {about['congestion_control']}; load before the run {before}."
    lines = [f"{text} {', '.join(packages)}. {', '.join(programs)}."]
    if missing:
        lines.append(f"Not on that machine, and so left out: {', '.join(missing)}.")
    return "\n".join(lines)


def _program(name: str, version: str) -> str:
    short = version.removeprefix("nginx version: ").partition(", ")[0].partition(" [")[0]
    return short if name in short.lower() else f"{name} {short.strip()}"


def bars(report: Report) -> str:
    """Each bar beside what our builds reach."""
    return markdown(
        ("what", "bar", "pure Python", "compiled"),
        ((bar.what, *_judged(report, bar)) for bar in BARS),
    )


def _judged(report: Report, bar: Bar) -> list[str]:
    values = [bar.value(report, system) for system in _OURS]
    if all(value is None for value in values):
        return [bar.wanted, "not measured", ""] if "chisel" in bar.what else ["", "", ""]
    shown = []
    for value in values:
        mark = "" if value is None else "" if bar.is_met(value) else " (missed)"
        shown.append("" if value is None else f"**{text_of(value)}{bar.unit}**{mark}")
    return [bar.wanted, *shown]


def by_system(scenarios: Sequence[str], *columns: Column) -> Callable[[Report], str]:
    """A row for each scenario and system that was measured."""

    def table(report: Report) -> str:
        rows = [
            [f"{scenario}, {system}", *(cell(report, scenario, system, column) for column in columns)]
            for scenario in scenarios
            for system in _SYSTEMS
            if report.find(scenario, system) is not None
        ]
        return markdown(["", *(column.title for column in columns)], rows)

    return table


def by_scenario(rows: Sequence[tuple[str, str]], *columns: Column, system: str = "qanat") -> Callable[[Report], str]:
    """A row for each scenario of one system: (title, scenario)."""

    def table(report: Report) -> str:
        return markdown(
            ["", *(column.title for column in columns)],
            ([title, *(cell(report, scenario, system, one) for one in columns)] for title, scenario in rows),
        )

    return table


def one_by_one(rows: Sequence[tuple[str, str, Column]]) -> Callable[[Report], str]:
    """A row for each figure: (what, scenario, figure)."""

    def table(report: Report) -> str:
        return markdown(("what", "figure"), ([what, cell(report, name, "qanat", one)] for what, name, one in rows))

    return table


def sizing(report: Report) -> str:
    """What one core of each side carries, by what a push cost it."""
    rows = []
    for title, scenario in (("2 KiB pushes, 16 in flight", "small-16"), ("2 KiB pushes, 1 in flight", "small-1")):
        for system in _OURS:
            found = report.find(scenario, system)
            costs = [(found.median.get(f"{role}_cpu_us_per_push") if found else None) for role in _ROLES]
            rows.append([f"{title}, {system}", *(f"{round(1e4 / one) * 100:,} /s" if one else "" for one in costs)])
    for system in _OURS:
        found = report.find("bulk-1mib-tls", system)
        costs = [(found.median.get(f"{role}_cpu_us_per_push") if found else None) for role in _ROLES]
        rows.append([f"1 MiB bodies, {system}", *(f"{1.048576e6 / one:,.0f} MB/s" if one else "" for one in costs)])
    return markdown(("load", "one core of the relay", "one core of the connector"), rows)


def memory(report: Report) -> str:
    """What to reckon for a relay, as far as it is a difference of two figures or a figure of a whole process."""
    program, crowded = (figure(one, "relay_rss_mib")(report, "qanat") for one in ("small-1", "burst-4000-kept"))
    connector = figure("small-1", "connector_rss_mib")(report, "qanat")
    each = None if program is None or crowded is None else (crowded - program) * 1024 / BURST_CONNECTIONS
    rows = (
        ("the relay's program", "" if program is None else f"{text_of(program)} MiB"),
        ("a sender's TLS connection that has carried a few pushes", "" if each is None else f"{text_of(each)} KiB"),
        ("a tunnel, fresh", cell(report, "idle-tunnels", "qanat", Column("", "kib_per_tunnel", "KiB"))),
        (
            "a tunnel after 1 MiB each way",
            cell(report, "tunnels-used", "qanat", Column("", "used_kib_per_tunnel", "KiB")),
        ),
        ("the connector's program", "" if connector is None else f"{text_of(connector)} MiB"),
    )
    return markdown(("memory of", "figure"), rows)


_ROLES: Final = ("relay", "connector")


def plots(report: Report) -> str:
    """The pictures that there are figures for."""
    names = [plot for plot in PLOTS if is_drawn(plot, report)]
    return "\n".join(f"![{plot.title}](performance/{plot.file})" for plot in names) or NOTHING


_P = (Column("p50", "p50_ms", "ms"), Column("p99", "p99_ms", "ms"), Column("p99.9", "p999_ms", "ms"))
_CPU = Column("CPU per push", "cpu_us_per_push", "µs")
_RATE = Column("pushes per second", "pushes_per_s")
_MB, _MB_CPU = Column("MB/s", "mb_per_s"), Column("MB per CPU second", "mb_per_cpu_s")
_FAILED = Column("failed", "failed")
_ROLE_CPU = (
    Column("CPU of the relay", "relay_cpu_us_per_push", "µs"),
    Column("of the connector", "connector_cpu_us_per_push", "µs"),
)
_TIMES = (1, 10, 100, 1000)

BLOCKS: Final[dict[str, Callable[[Report], str]]] = {
    "machine": machine,
    "bars": bars,
    "plots": plots,
    "small": by_system((*_SMALL, "steady-1000"), _CPU, _RATE, *_P, Column("memory", "rss_mib", "MiB")),
    "bulk": by_system(("bulk-1mib", "bulk-1mib-tls", "long-fat", "tcp-scp"), _MB, _MB_CPU, _FAILED),
    "beside": by_system(
        ("small-beside-bulk", "slow-link"), *_P, Column("p99 alone", "alone_p99_ms", "ms"),
        Column("p99 ÷ alone", "p99_ratio"), Column("bulk, MB/s", "mb_per_s"), _FAILED,
    ),
    "burst": by_system(
        ("burst-4000-kept", "burst-4000-new", "burst-4000-new-tls"), *_P, Column("delivered", "delivered"),
        _FAILED, Column("lost", "lost"),
    ),
    "stalled": by_system(
        ("stalled-readers",), *_P[:2], _FAILED, Column("relay before", "before_relay_rss_mib", "MiB"),
        Column("with them", "relay_rss_mib", "MiB"), Column("at its peak", "relay_peak_rss_mib", "MiB"),
    ),
    "scale": by_scenario(
        [*((f"{n:,} routes and {n:,} senders", f"scale-{n}") for n in _TIMES),
         *((f"{n:,} tunnels that take pushes in turn", f"tunnels-{n}") for n in _TIMES[:3])],
        _CPU, *_ROLE_CPU, _RATE, _P[1],
    ),
    "workers": by_scenario(
        [(f"{n} {'process' if n == 1 else 'workers'}", f"workers-{n}") for n in (1, 2, 4)],
        _RATE, _CPU, *_ROLE_CPU, Column("share of the busiest", "relay_busiest_share", "%"),
        Column("crossed", "crossed_share", "%"), _P[1],
    ),
    "hostile": by_scenario(
        [("another sender's flood", "flood"),
         *((f"1,000 wrong passwords a second, {how} connections", f"wrong-passwords-{name}")
           for how, name in (("kept", "kept"), ("kept TLS", "kept-tls"), ("new", "new"), ("new TLS", "new-tls")))],
        Column("attempts a second", "attack_per_s"), Column("p99", "p99_ms", "ms"),
        Column("alone", "alone_p99_ms", "ms"), Column("beside the same at another relay", "elsewhere_p99_ms", "ms"),
        _FAILED,
    ),
    "tunnels": one_by_one(
        [("memory of a tunnel, fresh (10,000 of them)", "idle-tunnels", Column("", "kib_per_tunnel", "KiB")),
         ("memory of a tunnel, fresh (1,000 of them)", "tunnels-used", Column("", "kib_per_tunnel", "KiB")),
         ("… after 1 MiB each way", "tunnels-used", Column("", "used_kib_per_tunnel", "KiB")),
         ("memory of a relay with 10,000", "idle-tunnels", Column("", "rss_mib", "MiB")),
         ("CPU of a relay with 10,000 that are idle", "idle-tunnels", Column("", "idle_cpu_share", "%")),
         ("CPU of a handshake, on the relay", "idle-tunnels", Column("", "cpu_ms_per_handshake", "ms")),
         ("500 pushes a second beside them, p50", "idle-tunnels", Column("", "p50_ms", "ms")),
         ("… p99", "idle-tunnels", Column("", "p99_ms", "ms")),
         ("… p99.9", "idle-tunnels", Column("", "p999_ms", "ms")),
         ("longest pause of the garbage collector while 10,000 come", "idle-tunnels",
          Column("", "gc_opening_longest_ms", "ms")),
         ("… and its share of the time", "idle-tunnels", Column("", "gc_opening_share", "%")),
         ("longest pause while they are idle", "idle-tunnels", Column("", "gc_idle_longest_ms", "ms")),
         ("longest pause while others push", "idle-tunnels", Column("", "gc_pushing_longest_ms", "ms")),
         ("a full collection, asked for: the longest that there can be", "idle-tunnels",
          Column("", "gc_full_ms", "ms"))],
    ),
    "reconnect": by_scenario(
        [("300 tunnels", "reconnect-300"), ("10,000 tunnels", "mass-reconnect")],
        Column("first push through", "flowing_s", "s"), Column("half are back", "back_50_s", "s"),
        Column("99 of 100", "back_99_s", "s"), Column("all", "back_100_s", "s"),
        Column("CPU of the relay meanwhile", "relay_cpu_share", "%"), *_P[:2], _FAILED,
    ),
    "sizing": sizing,
    "memory": memory,
}  # fmt: skip


def updated(page: str, report: Report) -> str:
    """The page with the tables of this report between its marks.

    Raises:
        ValueError: a block that the page asks for is not there, or one of ours has no place.
    """
    asked = [name for _, name, _ in MARKS.findall(page)]
    if sorted(asked) != sorted(BLOCKS):
        raise ValueError(f"{PAGE.name} has marks for {sorted(asked)}, and there are {sorted(BLOCKS)}")
    return MARKS.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]](report)}\n\n{found[3]}", page)


def update(report: Report) -> None:
    """Writes the page."""
    PAGE.write_text(updated(PAGE.read_text(), report))


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is as it should be."""
    page, report = PAGE.read_text(), load_report(KEPT)
    if "--check" not in arguments:
        update(report)
        return 0
    if page != updated(page, report):
        print(f"{PAGE.name} is not what benchmarks/results/latest.json says: run `python -m benchmarks.page`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
