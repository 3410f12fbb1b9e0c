"""Prechecks: what was looked at before, or without, a push; each with a result, a figure, and what to do if it failed.

    relay = Checklist("relay relay.example.com:443")
    with Stopwatch() as watch: ...
    relay.ok("TCP", "203.0.113.7", watch.figure)
    relay.failed("TLS", "it does not speak TLS", "Check the port in relays.", code="not-tls")

What is not said is not known: where a check could not be made because an earlier one failed, it says `skipped` and why.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple, Self

from rich.console import Group, RenderableType
from rich.text import Text

from shared.cli import counted, make_table, printable
from shared.exits import ExitCode

ALIGNED: Final = 13
"""Columns to which all subjects keep; a longer name moves its own subject's lines only."""

_PLURALS: Final = {"warning": "warnings"}

_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
_DAY: Final = 86_400.0


class Result(enum.StrEnum):
    """How a check ended. A warning works today, and is probably not meant, or will not work for long."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Figure(NamedTuple):
    """What was measured: a number and its unit (ms, s, days, …)."""

    value: float
    unit: str

    def __str__(self) -> str:
        digits = 1 if abs(self.value) < 10 and self.unit in ("ms", "s", "days") else 0
        return f"{self.value:.{digits}f} {self.unit}"


class Precheck(NamedTuple):
    """One line. `subject` is what was looked at, `check` in which respect. `code` is a word for scripts, perhaps one of
    the catalogue; `exit_code` what a command ends with if nothing else failed."""

    subject: str
    check: str
    result: Result
    figure: Figure | None = None
    detail: str = ""
    remedy: str = ""
    code: str = ""
    exit_code: ExitCode = ExitCode.FAILED

    def view(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "subject": self.subject, "check": self.check, "result": self.result.value,
            "value": None if self.figure is None else round(self.figure.value, 3),
            "unit": None if self.figure is None else self.figure.unit,
            "detail": self.detail, "remedy": self.remedy or None, "code": self.code or None,
        }  # fmt: skip


class Checklist:
    """The checks of one subject, in their order."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.rows: list[Precheck] = []

    def __repr__(self) -> str:
        return f"<Checklist {self.subject}: {', '.join(f'{row.check} {row.result}' for row in self.rows)}>"

    def ok(self, check: str, detail: str = "", figure: Figure | None = None) -> None:
        """All is well."""
        self.rows.append(Precheck(self.subject, check, Result.OK, figure, detail))

    def warning(
        self, check: str, detail: str, remedy: str = "", figure: Figure | None = None, *, code: str = ""
    ) -> None:
        """It works, and somebody should look at it."""
        self.rows.append(Precheck(self.subject, check, Result.WARNING, figure, detail, remedy, code))

    def failed(
        self,
        check: str,
        detail: str,
        remedy: str,
        figure: Figure | None = None,
        *,
        code: str = "",
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        """It does not work."""
        self.rows.append(Precheck(self.subject, check, Result.FAILED, figure, detail, remedy, code, exit_code))

    def skipped(self, why: str, *checks: str) -> None:
        """These could not be made, or would say nothing."""
        self.rows += [Precheck(self.subject, check, Result.SKIPPED, None, why) for check in checks]


class Stopwatch:
    """Measures the block that it is entered for."""

    def __init__(self) -> None:
        self._started_at = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._started_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started_at

    @property
    def figure(self) -> Figure:
        """In milliseconds."""
        return Figure(self.seconds * 1e3, "ms")


def days_left(until: datetime, now: datetime) -> Figure:
    """From now to the end of something; below zero if that is over."""
    return Figure((until - now).total_seconds() / _DAY, "days")


def exit_code_of(rows: Iterable[Precheck]) -> ExitCode:
    """3 if anything would keep the program from starting; else what all failures have in common, or 1."""
    codes = {row.exit_code for row in rows if row.result is Result.FAILED}
    if not codes:
        return ExitCode.OK
    if ExitCode.CONFIG in codes:
        return ExitCode.CONFIG
    return codes.pop() if len(codes) == 1 else ExitCode.FAILED


def counts(rows: Iterable[Precheck]) -> dict[str, int]:
    """How many ended how."""
    found = dict.fromkeys((one.value for one in Result), 0)
    for row in rows:
        found[row.result.value] += 1
    return found


def prechecks_view(rows: Sequence[Precheck]) -> dict[str, Any]:
    """What --json prints: whether nothing failed, counts by result, and every line."""
    found = counts(rows)
    return {"good": not found[Result.FAILED], "counts": found, "checks": [row.view() for row in rows]}


def prechecks_table(rows: Sequence[Precheck]) -> RenderableType:
    """For people: the lines under their subjects, the remedy beside each failure, a sum at the end."""
    width = min(max((len(row.check) for row in rows), default=0), ALIGNED)
    figures = min(max((len(str(row.figure)) for row in rows if row.figure is not None), default=0), ALIGNED)
    parts: list[RenderableType] = []
    for subject, found in groupby(rows, key=lambda row: row.subject):
        table = make_table(("", "", "", ""), [_cells(row) for row in found])
        table.show_header = False
        for column, least in zip(table.columns, (len("skipped"), width, figures, 0), strict=True):
            column.min_width = least or None
            column.no_wrap = least > 0  # the words wrap, never what one looks for
        table.columns[2].justify = "right"
        parts += [Text(printable(subject), style="bold"), table, Text()]
    told = [counted(count, result, _PLURALS.get(result, result)) for result, count in counts(rows).items() if count]
    return Group(*parts, Text(", ".join(told) or "nothing to check"))


def _cells(row: Precheck) -> tuple[Text | str, ...]:
    told = Text(printable(row.detail))
    if row.remedy:
        told.append(" → " if row.detail else "→ ").append(printable(row.remedy), style="italic")
    return Text(row.result.value, style=_STYLES[row.result.value]), row.check, str(row.figure or ""), told
