"""What must hold between the values of a config: names that exist, owners that are alone, listeners that can be bound.

Nothing is started or changed. Every flaw says where it stands and what to do.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Iterator

from cryptography import x509

from cloud_relay.config.checks_tcp import find_tcp_flaws, shares_port
from cloud_relay.config.credential_checks import certificate_flaws, credential_flaws, endpoint_flaws
from cloud_relay.config.models import RelayConfig, RouteConfig, TenantConfig
from shared.config import Flaw, Listen
from shared.config.problems import Key, dotted


def find_flaws(config: RelayConfig) -> list[Flaw]:
    """Everything that keeps the relay from starting with this config."""
    flaws = [*_listeners(config), *find_tcp_flaws(config)]
    if config.tunnel.tls is None and not config.tunnel.advertise:
        flaws.append(Flaw(
            ("tunnel",), "the relay is its own CA and must know by which names connectors reach it; "
            "add advertise: [relay.example.com:443], or tls with certificates of your own CA",
        ))  # fmt: skip
    for name, tenant in config.tenants.items():
        flaws += _tenant(name, tenant)
    flaws += _owners(config)
    flaws += _identities(config)
    flaws += _tenant_cas(config)
    flaws += endpoint_flaws(config)
    flaws += certificate_flaws(config)
    return flaws


def find_warnings(config: RelayConfig) -> list[Flaw]:
    """What works, but is probably not meant."""
    return [*_plain_listeners(config), *_idle(config)]


# --- listeners


def _listeners(config: RelayConfig) -> Iterator[Flaw]:
    seen: list[tuple[Listen, str]] = [(config.tunnel.listen, "tunnel.listen")]
    others: list[tuple[Listen, Key]] = [
        (ingress.listen, ("ingress", index, "listen")) for index, ingress in enumerate(config.ingress)
    ]
    others += [
        (route.listen, ("tenants", name, "tcp_routes", index, "listen"))
        for name, tenant in config.tenants.items()
        for index, route in enumerate(tenant.tcp_routes)
    ]
    if config.observe is not None:
        others.append((config.observe.listen, ("observe", "listen")))
    for address, where in others:
        for other, owner in seen:
            if _collide(address, other) and not shares_port(config, address, other):
                yield Flaw(where, f"{address} collides with {owner}, which listens on {other}")
                break
        seen.append((address, dotted(where)))


def _plain_listeners(config: RelayConfig) -> Iterator[Flaw]:
    uses_basic = any(sender.basic for tenant in config.tenants.values() for sender in tenant.senders)
    for index, ingress in enumerate(config.ingress):
        if ingress.tls is None and not _is_loopback(ingress.listen):
            what = "passwords and tokens" if uses_basic else "tokens"
            yield Flaw(
                ("ingress", index), f"without tls, {what} and payloads cross the network readable; add tls, "
                "or listen on 127.0.0.1 behind a proxy that ends TLS",
            )  # fmt: skip


def _collide(one: Listen, other: Listen) -> bool:
    """Whether both cannot be bound at once. Port 0 is a free one each time."""
    if one.port != other.port or one.port == 0:
        return False
    everywhere = ("", "0.0.0.0", "::")
    return one.host == other.host or one.host in everywhere or other.host in everywhere


def _is_loopback(address: Listen) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


# --- inside a tenant


def _tenant(name: str, tenant: TenantConfig) -> Iterator[Flaw]:
    where: Key = ("tenants", name)
    yield from _twice(tenant.locations, (*where, "locations"), "location")
    yield from _twice((sender.name for sender in tenant.senders), (*where, "senders"), "sender", "name")
    yield from _twice((route.name for route in tenant.routes), (*where, "routes"), "route", "name")
    names = {route.name for route in tenant.routes}
    yield from _twice((route.name for route in tenant.tcp_routes), (*where, "tcp_routes"), "route", "name")
    for index, tcp in enumerate(tenant.tcp_routes):
        if tcp.name in names:
            yield Flaw((*where, "tcp_routes", index, "name"), f"there is already a route called {tcp.name!r}")
    yield from credential_flaws(name, tenant)
    senders = {sender.name for sender in tenant.senders}
    for index, tcp in enumerate(tenant.tcp_routes):
        at: Key = (*where, "tcp_routes", index)
        for position, one in enumerate(tcp.senders):
            if one not in senders:
                yield Flaw((*at, "senders", position), _unknown("sender", one, senders, name))
        if tcp.to.location not in tenant.locations:
            yield Flaw((*at, "to", "location"), _unknown("location", tcp.to.location, tenant.locations, name))
    for index, route in enumerate(tenant.routes):
        yield from _route(name, tenant, senders, route, (*where, "routes", index))


def _twice(names: Iterable[str], where: Key, kind: str, key: str | None = None) -> Iterator[Flaw]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            at = (*where, index) if key is None else (*where, index, key)
            yield Flaw(at, f"there is already a {kind} called {name!r} in this tenant")
        seen.add(name)


def _route(name: str, tenant: TenantConfig, senders: set[str], route: RouteConfig, where: Key) -> Iterator[Flaw]:
    for index, sender in enumerate(route.senders):
        if sender not in senders:
            yield Flaw((*where, "senders", index), _unknown("sender", sender, senders, name))
    if route.to.location not in tenant.locations:
        message = _unknown("location", route.to.location, tenant.locations, name)
        yield Flaw((*where, "to", "location"), message)
    if route.match.sub_paths and len(route.match.path) > 1 and route.match.path.endswith("/"):
        yield Flaw(
            (*where, "match", "path"), "drop the '/' at the end: the path and all below it match without it; "
            "or say sub_paths: false for exactly this path",
        )  # fmt: skip
    if route.hold >= route.timeout:
        yield Flaw((*where, "hold"), "hold must be shorter than timeout, or no time is left for the target")


def _unknown(kind: str, name: str, known: Iterable[str], tenant: str) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        hint = f"it has {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    else:
        hint = "it has none"
    return f"tenant {tenant!r} has no {kind} {name!r}; {hint}"


# --- across tenants


def _owners(config: RelayConfig) -> Iterator[Flaw]:
    """One (host, path) has one owner, whichever tenant it is."""
    owners: dict[tuple[str, str], str] = {}
    for name, tenant in config.tenants.items():
        for index, route in enumerate(tenant.routes):
            owner = owners.setdefault((route.match.host, route.match.path), f"{name}/{route.name}")
            if owner != f"{name}/{route.name}":
                yield Flaw(
                    ("tenants", name, "routes", index, "match", "path"),
                    f"{route.match.host}{route.match.path} already belongs to route {owner}",
                )


def _identities(config: RelayConfig) -> Iterator[Flaw]:
    """Each entry knows certificates in one way, no two in the same, and stands for a connector that can be."""
    owners: dict[tuple[str, object], int] = {}
    for index, one in enumerate(config.tunnel.tls.identities if config.tunnel.tls is not None else ()):
        where: Key = ("tunnel", "tls", "identities", index)
        named = {"fingerprint": one.fingerprint, "dns": one.dns, "subject": one.subject}
        ways = [(way, value) for way, value in named.items() if value is not None]
        if len(ways) != 1:
            yield Flaw(where, "give exactly one of fingerprint, dns and subject")
            continue
        way, value = ways[0]
        owner = owners.setdefault((way, x509.Name.from_rfc4514_string(value) if way == "subject" else value), index)
        if owner != index:
            yield Flaw((*where, way), f"entry {owner} is for the same certificates already")
        tenant, location, _ = one.connector
        if tenant not in config.tenants:
            yield Flaw((*where, "connector"), f"there is no tenant {tenant!r}")
        elif location not in config.tenants[tenant].locations:
            yield Flaw((*where, "connector"), _unknown("location", location, config.tenants[tenant].locations, tenant))


def _tenant_cas(config: RelayConfig) -> Iterator[Flaw]:
    if config.tunnel.tls is not None:
        return
    for name, tenant in config.tenants.items():
        if tenant.connectors.client_ca is not None:
            where = ("tenants", name, "connectors", "client_ca")
            yield Flaw(where, "it counts only beside a CA of your own: give tunnel.tls, or drop it")


def _idle(config: RelayConfig) -> Iterator[Flaw]:
    for name, tenant in config.tenants.items():
        used = {sender for route in tenant.routes for sender in route.senders}
        used.update(sender for route in tenant.tcp_routes for sender in route.senders)
        for index, sender in enumerate(tenant.senders):
            if sender.name not in used:
                yield Flaw(("tenants", name, "senders", index), f"no route takes sender {sender.name!r}")
