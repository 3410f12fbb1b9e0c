"""What the commands about identity print for people: tables, or blocks of lines where a terminal is too narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType

from shared.cli import counted, make_table
from shared.tables import Rows, block

SHORT: Final = 16
"""Characters shown of a SHA-256, enough to name one."""

_STAGES: Final = {
    "steady": "no roll-over under way.",
    "published": "roll-over: the new root is published, the old one signs.",
    "switched": "roll-over: the new root signs, connectors renew.",
}
_ANY_IF_NONE: Final = frozenset({"targets"})
_DIGESTS: Final = frozenset({"fingerprint", "key", "pin"})


def tokens_table(found: Mapping[str, Any]) -> RenderableType:
    """tokens list"""
    columns = ("token", "connector", "state", "created", "expires", "used", "targets", "misuses")
    return _rows(columns, found["tokens"], "join tokens")


def certs_table(found: Mapping[str, Any]) -> RenderableType:
    """certs list"""
    columns = ("fingerprint", "connector", "standing", "not_after", "generation", "via", "revoked")
    return Group(
        _rows(("kind", "name", "not_after", "warning"), found["own"], "certificates of the relay's own"), "",
        _rows(columns, found["certificates"], "certificates of connectors"),
    )  # fmt: skip


def connectors_table(found: Mapping[str, Any]) -> RenderableType:
    """connectors list"""
    columns = ("connector", "state", "tunnels", "not_after", "generation", "targets", "reason")
    return _rows(columns, found["connectors"], "connectors")


def connector_table(found: Mapping[str, Any]) -> RenderableType:
    """connectors show"""
    columns = ("fingerprint", "standing", "not_before", "not_after", "generation", "via", "revoked", "reason")
    about = {name: value for name, value in found.items() if name != "certificates"}
    return Group(pairs(about), "", _rows(columns, found["certificates"], "certificates"))


def ca_table(found: Mapping[str, Any]) -> RenderableType:
    """ca status, and what changes it"""
    columns = ("generation", "is_active", "pin", "root_not_after", "issuing_not_after", "root_key_here", "connectors")
    stage = _STAGES[found["stage"]]
    parts: list[RenderableType] = [
        f"Trust domain {found['trust_domain']}, relay {found['relay']}, {stage}",
        _rows(columns, found["generations"], "generations"),
    ]
    if found["waits_for"]:
        parts.append("Waiting for these; whoever does not come is no longer waited for after 'until':")
        parts.append(_rows(("connector", "tunnels", "until"), found["waits_for"], "connectors"))
    elif found["stage"] == "switched" and found["tunnels_on_old"]:
        tunnels = counted(found["tunnels_on_old"], "tunnel")
        parts.append(f"Waiting for {tunnels} on a certificate of the old one.")
    return Group(*parts)


def events_table(found: Mapping[str, Any]) -> RenderableType:
    """events: the last column takes what room there is."""
    cells = [(str(one["number"]), one["at"], one["kind"], _details(one)) for one in found["events"]]
    return make_table(("number", "at", "kind", ""), cells) if cells else "no events"


def pairs(found: Mapping[str, Any]) -> RenderableType:
    """One thing, a line for each of its values; lists of other things are left out."""
    return block(
        (_title(name), _shown(name, value, whole=True))
        for name, value in found.items()
        if not isinstance(value, list) or not value or isinstance(value[0], str)
    )


def restore_text(done: Mapping[str, Any]) -> str:
    """restore"""
    lines = [f"Restored {counted(done['events'], 'event')} of {done['backup_at']} into {done['state_dir']}."]
    if done["replaced"]:
        lines.append(f"What was there lies in {done['replaced']}.")
    lines += [f"Lost: {one}" for one in done["lost"]]
    if done["unreadable"]:
        lines.append(f"What is lost cannot be named, the old state cannot be read: {done['unreadable']}")
    if done["unreadable"] or not done["lost"]:
        lines.append(
            "Revocations, blocks, roll-overs and limits of targets of after that time are lost: make them again."
        )
        lines.append("If the CA was given up as compromised since then: 'ca rotate --compromised' once more.")
    lines.append("Open join tokens do not count any more: make new ones.")
    return "\n".join(lines)


# ---------------------------------------------------------------- within


def _details(event: Mapping[str, Any]) -> str:
    """What an event holds beyond number, time and kind; whom it is about first."""
    names = ("tenant", "location", "connector")
    about = "/".join(str(event[name]) for name in names if event.get(name))
    rest = {name: value for name, value in event.items() if name not in {"number", "at", "kind", *names} and value}
    if event["kind"] == "cross-signed":  # "by" is a generation there, elsewhere it is a person
        rest["signed_by"] = rest.pop("by", None)
    return " ".join([*([about] if about else []), *(f"{name}={_shown(name, value)}" for name, value in rest.items())])


def _rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], what: str) -> Rows:
    cells = [tuple(_shown(column, row[column]) for column in columns) for row in rows]
    return Rows(tuple(map(_title, columns)), cells, what)


def _title(column: str) -> str:
    return column.replace("_", " ")


def _shown(name: str, value: object, *, whole: bool = False) -> str:
    if value is None:
        return "any" if name in _ANY_IF_NONE else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    text = str(value) or "-"
    return text[:SHORT] if name in _DIGESTS and not whole else text
