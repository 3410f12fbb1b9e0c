"""What the demo shows: a live table on a terminal, a line every other second elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.course import OTLP_SENDERS, REMOTE_WRITE_SENDERS, Progress
from demo.ledger import percentile

_WINDOW_S = 2.0
_LINE_EVERY_S = 2.0


@contextlib.asynccontextmanager
async def showing(progress: Progress, console: Console) -> AsyncIterator[None]:
    """Shows `progress` until the end of the context."""
    show = _live if console.is_terminal else _lines
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(show(progress, console), name="display")
        try:
            yield
        finally:
            task.cancel()


async def _live(progress: Progress, console: Console) -> None:
    with Live(render(progress), console=console, refresh_per_second=4, transient=False) as live:
        try:
            while True:
                await asyncio.sleep(0.25)
                live.update(render(progress))
        finally:
            live.update(render(progress))


async def _lines(progress: Progress, console: Console) -> None:
    shown = 0
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.1)
        for remark in progress.remarks[shown:]:
            console.print(f"  {progress.elapsed:4.1f} s  {remark}", highlight=False, markup=False, soft_wrap=True)
        shown = len(progress.remarks)
        if time.monotonic() - last >= _LINE_EVERY_S and progress.ledger.acknowledged:
            last = time.monotonic()
            console.print(summary(progress), highlight=False, markup=False, soft_wrap=True)


def summary(progress: Progress) -> str:
    """How things stand, in a line."""
    ledger = progress.ledger
    recent = [ms for _, ms in ledger.recent(time.monotonic() - _WINDOW_S)]
    tunnels = "?" if progress.tunnels is None else progress.tunnels
    return (
        f"  {progress.elapsed:4.1f} s  {len(recent) / _WINDOW_S:5.0f} pushes/s  p50 {percentile(recent, 0.5):.1f} ms  "
        f"p99 {percentile(recent, 0.99):.1f} ms  connector {progress.connector}, {tunnels} tunnels  "
        f"acknowledged {len(ledger.acknowledged)}, delivered {len(ledger.delivered)}"
    )


def render(progress: Progress) -> RenderableType:
    """The live picture: the path at the top, a row a sender, the remarks below."""
    ledger = progress.ledger
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("sender", "pushes/s", "p50 ms", "p99 ms", "acknowledged", "delivered"):
        table.add_column(title, justify="left" if title == "sender" else "right")
    recent: dict[str, list[float]] = defaultdict(list)
    for push, ms in ledger.recent(time.monotonic() - _WINDOW_S):
        recent[push.rpartition("/")[0]].append(ms)
    acknowledged, delivered = _by_sender(ledger.acknowledged), _by_sender(ledger.delivered)
    for kind, names in (("OTLP/HTTP", OTLP_SENDERS), ("remote write", REMOTE_WRITE_SENDERS)):
        for name in names:
            values = recent[name]
            table.add_row(
                f"{name} ({kind})",
                f"{len(values) / _WINDOW_S:.0f}",
                f"{percentile(values, 0.5):.1f}",
                f"{percentile(values, 0.99):.1f}",
                str(acknowledged[name]),
                str(delivered[name]),
            )
    reasons = ", ".join(f"{count}× {reason}" for reason, count in ledger.reasons.most_common(4)) or "none"
    return Group(
        _path(progress),
        table,
        Text(f"{ledger.series:,} series arrived · tries that failed: {reasons}", style="dim"),
        *(Text(f"· {remark}") for remark in progress.remarks),
    )


def _path(progress: Progress) -> Text:
    """sender ─▶ relay ═ tunnels ═ connector ─▶ target, with the state of the middle."""
    is_up = progress.connector == "up" and bool(progress.tunnels)
    tunnels = "? tunnels" if progress.tunnels is None else f"{progress.tunnels} tunnels"
    return Text.assemble(
        (f"{progress.elapsed:5.1f} s  ", "dim"),
        "senders ──HTTPS──▶ relay ",
        (f"◀══ {tunnels} ══", "green" if is_up else "red"),
        " connector ",
        (f"({progress.connector})", "green" if is_up else "red"),
        " ──▶ receiver",
    )


def _by_sender(pushes: set[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for push in pushes:
        counts[push.rpartition("/")[0]] += 1
    return counts
