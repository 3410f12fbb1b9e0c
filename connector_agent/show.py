"""What the command line shows: tables of a status, an error code's meaning."""

from __future__ import annotations

import difflib
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from shared.cli import CommandError, ExitCode, make_table
from shared.errors import FAULTS

_COLORS: Final = {"ok": "green", "failing": "red", "open": "green"}


def explain_fault(code: str) -> tuple[dict[str, Any], str]:
    """An entry of the catalogue, as data and as text. CommandError for an unknown code."""
    fault = FAULTS.get(code)
    if fault is None:
        near = difflib.get_close_matches(code, FAULTS, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "The codes are in docs/errors.md."
        raise CommandError(ExitCode.NOT_FOUND, f"there is no code {code[:80]!r}", hint)
    data = {
        "code": fault.code,
        "origin": fault.origin.value,
        "status": fault.status,
        "title": fault.title,
        "remedy": fault.remedy,
        "retry_after": fault.retry_after,
        "closes": fault.closes,
    }
    answer = f"answered with {fault.status}" if fault.status else "no answer, the connection ends"
    return data, f"{fault.code} (origin: {fault.origin.value}; {answer})\n{fault.title}\n{fault.remedy}"


def status_tables(status: dict[str, Any]) -> RenderableType:
    """A status for people."""
    head = (
        f"connector {status['state']} since {status['started_at']}, version {status['version']}, "
        f"{status['in_flight']} pushes in flight"
    )
    parts: list[RenderableType] = [Text(head)]
    reload = status["reload"]
    if reload is not None and not reload["taken"]:
        parts.append(Text(f"config not taken at {reload['at']}: {'; '.join(reload['lines'])}", style="red"))
    parts += [Text(), _tunnels(status["tunnels"]), Text(), _targets(status["targets"])]
    return Group(*parts)


def _tunnels(tunnels: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (_colored(str(one.get("state"))), *(one.get(key) for key in ("relay", "age_s", "rtt_ms", "in_flight", "error")))
        for one in tunnels
    ]
    return make_table(("state", "relay", "age s", "rtt ms", "in flight", "last error"), rows)


def _targets(targets: list[dict[str, Any]]) -> RenderableType:
    rows = []
    for one in targets:
        last, fault = one["last"], one["connect_fault"]
        told = "-" if last is None else f"{last['code'] or last['status']} at {last['at']}"
        if fault is not None:
            told = f"{fault['code']}: {fault['detail']}"
        answers = ", ".join(f"{count} × {status}" for status, count in one["answers"].items())
        rows.append((one["target"], one["url"], _colored(one["state"]), one["pushes"], answers or "-", told))
    return make_table(("target", "url", "state", "pushes", "answers", "last"), rows)


def _colored(state: str) -> Text:
    return Text(state, style=_COLORS.get(state, ""))
