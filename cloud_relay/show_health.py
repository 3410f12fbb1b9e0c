"""How routes and targets are, for people: the state, the cause, and how long ago that was found out."""

from __future__ import annotations

from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from shared.tables import Rows
from shared.units import format_duration

_COLORS: Final = {"green": "green", "red": "red", "unknown": "yellow"}
_WORDS: Final = {
    "not-probed-yet": "not probed yet",
    "connector-cannot-probe": "its connector is too old for probes",
    "probe-none": "not probed, as its connector's config says",
}


def state_text(row: dict[str, Any]) -> Text:
    """ "red: target-unreachable, 3s ago"."""
    state = str(row["state"])
    why, age = row.get("why"), row.get("age_s")
    text = state if why is None else f"{state}: {_WORDS.get(why, why)}"
    if age is not None and state != "unknown":
        text += f", {format_duration(age)} ago"
    return Text(text, style=_COLORS.get(state, ""))


def targets_table(status: dict[str, Any]) -> RenderableType | None:
    """Every target behind every connector; None where none is exposed."""
    rows = [
        (
            f"{tenant['tenant']}/{location['location']}/{connector['connector']}",
            target["target"],
            state_text(target),
            "-" if target["took_ms"] is None else f"{target['took_ms']} ms of {target['path_ms']} ms",
            _note(target),
        )
        for tenant in status["tenants"]
        for location in tenant["locations"]
        for connector in location["connectors"]
        for target in connector["targets"]
    ]
    return Rows(("connector", "target", "state", "took", "remark"), rows, "targets") if rows else None


def _note(target: dict[str, Any]) -> str:
    if target["taken_out_s"] is not None:
        return f"pushes failed: others come first for {format_duration(target['taken_out_s'])} at least"
    if target["passed_over"]:
        return "others come first"
    return f"no answer: {target['unanswered']}" if target["unanswered"] else "-"
