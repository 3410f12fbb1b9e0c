"""`cloud-relay routes test`: where a push would go, by the config alone, and in words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from rich.console import RenderableType

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
from cloud_relay.routing import Route
from cloud_relay.sender_state import SenderFile
from cloud_relay.snapshot import SnapshotBuilder
from cloud_relay.throttle import FailureThrottle
from shared.addresses import is_address
from shared.cli import CommandError, ExitCode, make_pairs
from shared.errors import FAULTS
from shared.http.gate import BadRequest
from shared.http.requests import parse_request_head
from shared.names import suggestion
from shared.units import format_duration, format_size


def find_route(config: RelayConfig, method: str, url: str, sender: str | None) -> dict[str, Any]:
    """The way that a push to `url` would take. CommandError when there is none, or when the sender may not take it."""
    route = _lookup(config, *_judged(method, url))
    if route.endpoint is not None:
        message = f"this is the token endpoint of tenant {route.tenant!r}: the relay answers there by itself"
        raise CommandError(ExitCode.REFUSED, message, "Senders with oauth get their tokens there; push to a route.")
    names = sorted(allowed.name for allowed in route.senders)
    if sender is not None and sender not in names:
        _refuse_sender(config, route, sender, names)
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


def _judged(method: str, url: str) -> tuple[bytes, bytes]:
    """Host and raw path of the request that a sender would make of it, judged as the relay judges every request."""
    if not method.isascii() or not method.isupper():
        raise CommandError(ExitCode.USAGE, f"{method[:40]!r} is not a method", "Write it in capitals: POST")
    remedy = "Write it as https://push.example.com/path"
    try:
        parts = urlsplit(url)
        host, path, query = (part.encode("ascii") for part in (parts.netloc, parts.path or "/", parts.query))
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "this is not a URL", remedy) from error
    if parts.scheme not in ("http", "https") or not host or b"@" in host:
        raise CommandError(ExitCode.USAGE, "this is not a URL that a sender pushes to", remedy)
    target = b"%b?%b" % (path, query) if query else path
    try:
        head = parse_request_head(b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method.encode(), target, host.lower()))
    except BadRequest as error:
        fault = error.fault
        message = f"the relay would refuse this request with {fault.status}: {fault.title}"
        raise CommandError(ExitCode.REFUSED, message, fault.remedy, fault.code, status=fault.status) from error
    return head.host, head.path


def _lookup(config: RelayConfig, host: bytes, path: bytes) -> Route:
    pool = HashingPool()
    unused = Path()
    services = SenderServices(pool, FailureThrottle(), KeyBook(), AccessTokens(SigningKeys(unused), ""))
    try:
        table = SnapshotBuilder(Limits(), RelayMetrics(process=False), services, SenderFile(unused)).build(config).table
    finally:
        pool.close()
    route = table.lookup(host, path)
    if route is not None:
        return route
    fault = FAULTS["no-such-route" if table.has_host(host) else "unknown-host"]
    if fault.code == "unknown-host":
        hint = suggestion(host.decode(), (one.host.decode() for one in table.routes))
    else:
        of_host = [one for one in table.routes if one.host == host.rpartition(b":")[0] or one.host == host]
        hint = suggestion(path.decode(), (one.path.decode() for one in of_host))
    remedy = f"{fault.remedy} {hint}".rstrip()
    raise CommandError(ExitCode.NOT_FOUND, fault.title, remedy, fault.code, status=fault.status)


def _refuse_sender(config: RelayConfig, route: Route, sender: str, names: Iterable[str]) -> NoReturn:
    known = [one.name for one in config.tenants[route.tenant].senders]
    if sender not in known:
        message = f"tenant {route.tenant!r} has no sender {sender[:80]!r}"
        raise CommandError(ExitCode.NOT_FOUND, message, suggestion(sender, known), "unknown-sender")
    fault = FAULTS["sender-not-allowed"]
    message = f"sender {sender!r} may not use route {route.tenant}/{route.name}, only {', '.join(names)}"
    raise CommandError(ExitCode.REFUSED, message, fault.remedy, fault.code, status=fault.status)


def find_tcp_route(config: RelayConfig, url: str, source: str | None) -> dict[str, Any]:
    """The way of a connection to `tcp://host:port`, or `tls://name:port`. CommandError as for `find_route`."""
    remedy = "Write it as tcp://relay.example.com:514 or tls://…"
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "this is no address", remedy) from error
    if not name or not port or parts.path:
        raise CommandError(ExitCode.USAGE, "this is no address", remedy)
    if source is not None and not is_address(source):
        raise CommandError(ExitCode.USAGE, f"{source[:80]!r} is no IP address", "Write it as --source 192.0.2.1")
    ports = {route.listen.port for known in config.tenants.values() for route in known.tcp_routes}
    if port not in ports:
        shown = ", ".join(map(str, sorted(ports)))
        remedy = f"TCP routes listen at {shown}." if ports else "The config has no tcp_routes."
        raise CommandError(ExitCode.NOT_FOUND, f"no TCP route listens at port {port}", remedy, "no-such-route")
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
    return make_pairs(rows)


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
    return make_pairs(rows)
