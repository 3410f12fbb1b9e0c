"""What the command line shows of a running relay: the tables of its status, what an upgrade came to."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from cloud_relay.cli_upgrade import progress
from cloud_relay.show_health import state_text, targets_table
from shared.cli import counted
from shared.tables import Rows
from shared.units import format_duration, format_size

_COLORS: Final = {"green": "green", "red": "red", "open": "green", "suspect": "yellow"}


def upgrade_text(answer: dict[str, Any]) -> str:
    """What an upgrade came to."""
    if "workers" in answer:
        upgrade = answer["upgrade"]
        if upgrade["stage"] == "done":
            return f"all {answer['workers']} workers are new processes now (version {upgrade['version']})"
        return f"{answer['workers']} workers are being replaced, one after the other; status tells how far it is"
    old, new = answer["old"], answer["new"]
    left = old["connections"]
    rest = f"serves out its {counted(left, 'connection')}, for {format_duration(old['seconds'])} at most"
    return (
        f"the new process {new['pid']} (version {new['version']}) serves; "
        f"the old one, {old['pid']}, {rest if left else 'has no connection left'}"
    )


def identity_lines(identity: dict[str, Any] | None) -> list[RenderableType]:
    """What is to be known of certificates: nothing much, or what to do."""
    if identity is None:
        return []
    lines: list[RenderableType] = []
    if identity["clock_is_doubtful"]:
        error = format_duration(abs(identity["clock_error_s"]))
        lines.append(Text(f"This host's clock has jumped by {error} and is not believed: set it right.", style="red"))
    if identity["roll_over"] != "steady":
        waits = counted(identity["waits_for"], "connector")
        lines.append(Text(f"The CA is being rolled over ({identity['roll_over']}): waiting for {waits}.", "yellow"))
    lines += [
        Text(f"The {one['kind']} certificate {one['name']} ends at {one['not_after']}: {one['warning']}.", "yellow")
        for one in identity["certificates"] if one["warning"]
    ]  # fmt: skip
    if not lines and identity["certificates"]:
        first = min(identity["certificates"], key=lambda one: str(one["not_after"]))
        lines.append(Text(f"Certificates: all good, the first ends at {first['not_after']} ({first['kind']})"))
    return lines


def status_tables(status: dict[str, Any]) -> RenderableType:
    """The whole status for people."""
    memory = status["memory"]
    in_flight = counted(status["in_flight"], "push", "pushes")
    head = (
        f"cloud-relay {status['version']}, {status['state']}, up {format_duration(status['uptime_s'])}, "
        f"{_workers(status)}{in_flight} in flight, {memory['used'] >> 20} of {memory['budget'] >> 20} MiB"
    )
    parts: list[RenderableType] = [Text(head)]
    if status["reload"] is not None and not status["reload"]["taken"]:
        parts += [Text(f"The config was not taken at {status['reload']['at']}:", style="red")]
        parts += [Text(f"  {line}") for line in status["reload"]["lines"]]
    parts += [
        Text(
            f"The process {one['pid']} before this one drains since {format_duration(one['since_s'])}: "
            f"{counted(one['connections'], 'connection')}, {counted(one['in_flight'], 'push', 'pushes')} in flight, "
            f"{counted(one['tunnels'], 'tunnel')}",
            style="yellow",
        )
        for one in status.get("draining", ())
    ]
    parts += identity_lines(status.get("identity"))
    listeners = [(d["kind"], ", ".join(d["bound"]), "yes" if d["tls"] else "no") for d in status["listeners"]]
    parts += [Text(), Rows(("listener", "address", "TLS"), listeners, "listeners")]
    columns = ("tenant", "location", "connector", "tunnel", "age", "rtt", "in flight", "targets")
    parts += [Text(), Rows(columns, _tunnel_rows(status), "tenants")]
    targets = targets_table(status)
    parts += [Text(), targets] if targets is not None else []
    parts += _not_allowed_lines(status)
    routes = [
        (
            f"{r['tenant']}/{r['route']}",
            state_text(r),
            f"{r['host']}{r['path']}",
            f"{r['location']}/{r['target']}",
            r["in_flight"],
            r["pushes"],
            " ".join(f"{key}:{count}" for key, count in r["answers"].items()) or "-",
        )
        for r in status["routes"]
    ]
    parts += [Text(), Rows(("route", "state", "matches", "to", "in flight", "pushes", "answers"), routes, "routes")]
    if status["tcp_routes"]:
        parts += [Text(), _tcp_table(status["tcp_routes"])]
    return Group(*parts)


def _workers(status: dict[str, Any]) -> str:
    found = status.get("workers")
    if found is None:
        return ""
    missing = f"{found['answering']} of " if found["answering"] < found["count"] else ""
    remarks = []
    if blind := found.get("blind_workers"):
        remarks.append(f"the state cannot be read: {', '.join(map(str, blind))} serve nobody")
    if (upgrade := found.get("upgrade")) is not None and upgrade["stage"] != "done":
        why = f": {upgrade['error']['title']}" if upgrade["error"] else ""
        remarks.append(f"upgrade: {progress(upgrade)}{why}")
    shown = f" ({'; '.join(remarks)})" if remarks else ""
    return f"{missing}{counted(found['count'], 'worker')}{shown}, "


def _not_allowed_lines(status: dict[str, Any]) -> list[RenderableType]:
    """Why a target that a connector has is nowhere to be seen."""
    lines: list[RenderableType] = []
    for tenant in status["tenants"]:
        for location in tenant["locations"]:
            for one in location["connectors"]:
                if one["not_allowed"]:
                    full = f"{tenant['tenant']}/{location['location']}/{one['connector']}"
                    text = f"{full} announces what its join token did not allow: {', '.join(one['not_allowed'])}"
                    lines.append(Text(text, style="yellow"))
    return [Text(), *lines] if lines else []


def _tcp_table(routes: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            f"{r['tenant']}/{r['route']}",
            state_text(r),
            r["arrives_at"],
            f"{r['location']}/{r['target']}",
            r["open"],
            r["connections"],
            f"{format_size(r['bytes_in'])} / {format_size(r['bytes_out'])}",
        )
        for r in routes
    ]
    return Rows(("TCP route", "state", "arrives at", "to", "open", "connections", "in / out"), rows, "TCP routes")


def _tunnel_rows(status: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for tenant in status["tenants"]:
        for location in tenant["locations"]:
            where = (tenant["tenant"], location["location"])
            if not location["connectors"]:
                rows.append((*where, Text("none attached", style="red"), "", "", "", "", ""))
            for connector in location["connectors"]:
                name = f"{connector['connector']} (standby)" if connector["standby"] else connector["connector"]
                rows += [_tunnel_row(where, name, tunnel) for tunnel in connector["tunnels"]]
    return rows


def _tunnel_row(where: tuple[str, str], connector: str, tunnel: dict[str, Any]) -> tuple[object, ...]:
    return (
        *where,
        connector,
        Text(tunnel["state"], style=_COLORS.get(tunnel["state"], "")),
        format_duration(tunnel["age_s"]),
        "-" if tunnel["rtt_ms"] is None else f"{tunnel['rtt_ms']} ms",
        tunnel["in_flight"],
        ", ".join(sorted(tunnel["targets"])) or "-",
    )
