"""What the command line shows: tables of a status."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from shared.cli import counted
from shared.tables import Rows
from shared.units import format_duration

_COLORS: Final = {"ok": "green", "failing": "red", "open": "green"}


def status_tables(status: dict[str, Any]) -> RenderableType:
    """A status for people."""
    head = (
        f"connector {status['state']} since {status['started_at']}, version {status['version']}, "
        f"{counted(status['in_flight'], 'push', 'pushes')} in flight{', on standby' if status.get('standby') else ''}"
    )
    parts: list[RenderableType] = [Text(head)]
    reload = status["reload"]
    if reload is not None and not reload["taken"]:
        parts.append(Text(f"config not taken at {reload['at']}: {'; '.join(reload['lines'])}", style="red"))
    parts += [Text(line) for line in _identity(status.get("identity"))]
    parts += [Text(f"warning: {text}", style="red") for text in status.get("warnings", ())]
    parts += [Text(), _tunnels(status["tunnels"]), Text(), _targets(status["targets"])]
    return Group(*parts)


def certs_table(shown: dict[str, Any]) -> RenderableType:
    """What `certs show` prints for people."""
    rows = [tuple(one[key] for key in ("kind", "name", "not_after", "issuer")) for one in shown["certificates"]]
    parts: list[RenderableType] = [Text(line) for line in _identity(shown["identity"])]
    parts += [Text(f"warning: {text}", style="red") for text in shown["warnings"]]
    return Group(*parts, Text(), Rows(("kind", "name", "valid until", "issuer"), rows, "certificates"))


def _identity(identity: dict[str, Any] | None) -> list[str]:
    if identity is None:
        return []
    if identity["mode"] == "own-ca":
        return ["identity: a certificate of your own CA, from the files in tls"]
    lines = [f"identity: {identity['id'] or 'none yet: joining'}"]
    if identity["next_renewal"]:
        lines.append(f"next renewal: {identity['next_renewal']}")
    if identity["clock"] and identity["clock"]["is_doubtful"]:
        lines.append(f"this host's clock is off by {identity['clock']['error_s']} s, and is not believed")
    if identity["error"]:
        error = identity["error"]
        lines.append(f"last failure: {error['code']}: {error['detail']} {error['remedy']}".rstrip())
    return lines


def _tunnels(tunnels: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            _colored(str(one.get("state"))),
            one.get("relay"),
            "-" if one.get("age_s") is None else format_duration(one["age_s"]),
            "-" if one.get("rtt_ms") is None else f"{one['rtt_ms']} ms",
            one.get("in_flight"),
            one.get("error") or "-",
        )
        for one in tunnels
    ]
    return Rows(("tunnel", "relay", "age", "rtt", "in flight", "last error"), rows, "tunnels")


def _targets(targets: list[dict[str, Any]]) -> RenderableType:
    rows = []
    for one in targets:
        last, fault = one["last"], one["connect_fault"]
        told = "-" if last is None else f"{last['code'] or last['status']} at {last['at']}"
        if fault is not None and one["state"] == "failing":
            told = f"{fault['code']}: {fault['detail']}"
        answers = ", ".join(f"{count} × {status}" for status, count in one["answers"].items())
        rows.append((
            one["target"], one["url"], _colored(one["state"]), _probe(one.get("probe", {})), one["pushes"],
            answers or "-", told,
        ))  # fmt: skip
    return Rows(("target", "url", "state", "probe", "pushes", "answers", "last"), rows, "targets")


def _probe(probe: dict[str, Any]) -> Text:
    """What the last probe found, and when: "ok in 1.2 ms, 3.0 s ago"."""
    if "age_s" not in probe:
        return Text("none" if probe.get("state") == "none" else "not asked for yet")
    ago = f"{format_duration(probe['age_s'])} ago"
    if probe["state"] == "ok":
        return Text(f"ok in {probe['took_ms']} ms, {ago}", style="green")
    return Text(f"{probe['code']}, {ago}: {probe['detail']}", style="red")


def _colored(state: str) -> Text:
    return Text(state, style=_COLORS.get(state, ""))
