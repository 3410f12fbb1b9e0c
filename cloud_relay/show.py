"""What the command line shows: tables of a status, a route's way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.text import Text

from cloud_relay.cli_upgrade import progress
from cloud_relay.config import RelayConfig
from cloud_relay.config.checks_tcp import covers
from cloud_relay.config.tcp import TcpRouteConfig
from cloud_relay.hashing import HashingPool
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics
from cloud_relay.oauth.fetch import KeyBook
from cloud_relay.oauth.keys import SigningKeys
from cloud_relay.oauth.tokens import AccessTokens
from cloud_relay.ports.networks import is_within
from cloud_relay.realms import SenderServices
from cloud_relay.sender_state import SenderFile
from cloud_relay.show_health import state_text, targets_table
from cloud_relay.snapshot import SnapshotBuilder
from cloud_relay.throttle import FailureThrottle
from shared.cli import CommandError, ExitCode, counted, make_table
from shared.errors import FAULTS
from shared.units import format_duration, format_size

_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)
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


# --- routes


def find_route(config: RelayConfig, method: str, url: str, sender: str | None) -> dict[str, Any]:
    """The way that a push to `url` would take. CommandError when there is none, or when the sender may not take it."""
    if _METHOD.fullmatch(method) is None:
        raise CommandError(ExitCode.USAGE, f"{method[:40]!r} is not a method", "Write it in capitals: POST")
    host, path = _split(url)
    pool = HashingPool()
    unused = Path()
    services = SenderServices(pool, FailureThrottle(), KeyBook(), AccessTokens(SigningKeys(unused), ""))
    try:
        table = SnapshotBuilder(Limits(), RelayMetrics(process=False), services, SenderFile(unused)).build(config).table
    finally:
        pool.close()
    route = table.lookup(host, path)
    if route is not None and route.endpoint is not None:
        message = f"this is the token endpoint of tenant {route.tenant!r}: the relay answers there by itself"
        raise CommandError(ExitCode.REFUSED, message, "Senders with oauth get their tokens there; push to a route.")
    if route is None:
        fault = FAULTS["no-such-route" if table.has_host(host) else "unknown-host"]
        raise CommandError(ExitCode.NOT_FOUND, fault.title, fault.remedy, fault.code, status=fault.status)
    names = sorted(allowed.name for allowed in route.senders)
    if sender is not None and sender not in names:
        message = f"sender {sender!r} may not use route {route.tenant}/{route.name}, only {', '.join(names)}"
        fault = FAULTS["sender-not-allowed"]
        raise CommandError(ExitCode.REFUSED, message, fault.remedy, fault.code, status=fault.status)
    limits = next(one for one in config.tenants[route.tenant].routes if one.name == route.name).limits
    return {
        "tenant": route.tenant,
        "route": route.name,
        "host": route.host.decode(),
        "path": route.path.decode(),
        "sub_paths": route.sub_paths,
        "location": route.location,
        "target": route.target,
        "senders": names,
        "limits": {
            "body": limits.body, "rate": limits.rate, "burst": limits.burst, "in_flight": limits.in_flight,
        },
        "hold_s": route.hold,
        "timeout_s": route.timeout,
        "quota_status": route.quota_fault.status,
    }  # fmt: skip


def find_tcp_route(config: RelayConfig, url: str, source: str | None) -> dict[str, Any]:
    """The way of a connection to `tcp://host:port`, or `tls://name:port`. CommandError as for `find_route`."""
    parts = urlsplit(url)
    try:
        name, port = parts.hostname or "", parts.port
    except ValueError:
        name, port = "", None
    if not name or not port or parts.path:
        raise CommandError(ExitCode.USAGE, "this is no address", "Write it as tcp://relay.example.com:514 or tls://…")
    found: TcpRouteConfig | None = None
    owner = ""
    for tenant, known in config.tenants.items():
        for route in known.tcp_routes:
            if route.listen.port != port:
                continue
            fits = parts.scheme == "tls" and any(covers(one, name.lower()) for one in route.sni)
            if fits or (not route.sni and (route.tls is not None) == (parts.scheme == "tls") and found is None):
                found, owner = route, tenant
    if found is None:
        fault = FAULTS["unknown-server-name"]
        raise CommandError(ExitCode.NOT_FOUND, fault.title, fault.remedy, fault.code)
    if source is not None and found.networks and not is_within(source, found.networks):
        fault = FAULTS["sender-network-refused"]
        raise CommandError(ExitCode.REFUSED, fault.title, fault.remedy, fault.code)
    return {
        "kind": "tcp",
        "tenant": owner,
        "route": found.name,
        "arrives_at": found.arrives_at,
        "location": found.to.location,
        "target": found.to.target,
        "senders": list(found.senders),
        "networks": [str(network) for network in found.networks],
        "connections": found.limits.connections,
        "hold_s": found.hold,
        "timeout_s": found.timeout,
        "idle_s": found.idle,
    }


def tcp_route_table(route: dict[str, Any]) -> RenderableType:
    """A TCP route's way for people."""
    rows = [
        ("route", f"{route['tenant']}/{route['route']}"),
        ("arrives at", route["arrives_at"]),
        ("target", f"{route['target']} at {route['location']}"),
        ("senders", ", ".join(route["senders"]) or "whoever comes from the networks"),
        ("networks", ", ".join(route["networks"]) or "any"),
        ("limits", f"{route['connections']} connections, idle for {format_duration(route['idle_s'])} at most"),
    ]
    return make_table(("", ""), rows)


def _split(url: str) -> tuple[bytes, bytes]:
    """Host and raw path, as they would stand in the request."""
    try:
        parts = urlsplit(url)
        host, path = parts.netloc.rpartition("@")[2].lower().encode("ascii"), (parts.path or "/").encode("ascii")
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "this is not a URL", "Write it as https://push.example.com/path") from error
    if parts.scheme not in ("http", "https") or not host:
        raise CommandError(ExitCode.USAGE, "this is not a URL", "Write it as https://push.example.com/path")
    return host, path


def route_table(route: dict[str, Any]) -> RenderableType:
    """A route's way for people."""
    limits = route["limits"]
    rate = f"{limits['rate']:g}/s" if limits["rate"] else "any rate"
    in_flight = f"{limits['in_flight']} at once" if limits["in_flight"] else "any number at once"
    rows = [
        ("route", f"{route['tenant']}/{route['route']}"),
        ("matches", f"{route['host']}{route['path']}{' and below' if route['sub_paths'] else ''}"),
        ("target", f"{route['target']} at {route['location']}; its connector judges method and path"),
        ("senders", ", ".join(route["senders"])),
        ("limits", f"{format_size(limits['body'])} a body, {rate}, {in_flight}; then {route['quota_status']}"),
        ("waits", f"{format_duration(route['hold_s'])} for a connector, {format_duration(route['timeout_s'])} in all"),
    ]
    return make_table(("", ""), rows)


# --- status


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
    listeners = [(d["kind"], ", ".join(d["bound"]), "TLS" if d["tls"] else "plain") for d in status["listeners"]]
    parts += [Text(), make_table(("LISTENER", "ADDRESS", ""), listeners)]
    parts += [Text(), make_table(("TENANT", "LOCATION", "CONNECTOR", "TUNNEL", "AGE", "RTT", "IN FLIGHT", "TARGETS"),
                                 _tunnel_rows(status))]  # fmt: skip
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
    parts += [Text(), make_table(("ROUTE", "STATE", "MATCHES", "TO", "IN FLIGHT", "PUSHES", "ANSWERS"), routes)]
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
    return make_table(("TCP ROUTE", "STATE", "ARRIVES AT", "TO", "OPEN", "CONNECTIONS", "IN / OUT"), rows)


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
