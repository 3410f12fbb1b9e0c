"""What must hold between the values of a config: names that exist, owners that are alone, files that are there.

Nothing is started or changed. Every problem says where it stands and what to do.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cloud_relay.config.listen import ListenAddress
from cloud_relay.config.models import CertificateConfig, RelayConfig, RouteConfig, SenderConfig, TenantConfig

Location = tuple[str | int, ...]
"""Where in the file: keys and list indexes from the top."""


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    where: Location
    message: str


def find_problems(config: RelayConfig) -> list[Problem]:
    """Everything that keeps the relay from starting with this config."""
    problems = [*_listeners(config), *_files(config)]
    for name, tenant in config.tenants.items():
        problems += _tenant(name, tenant)
    problems += _owners(config)
    return problems


def find_warnings(config: RelayConfig) -> list[Problem]:
    """What works, but is probably not meant."""
    return [*_plain_listeners(config), *_idle(config)]


# --- listeners


def _listeners(config: RelayConfig) -> Iterator[Problem]:
    seen: list[tuple[ListenAddress, str]] = [(config.tunnel.listen, "tunnel.listen")]
    others: list[tuple[ListenAddress, Location]] = [
        (ingress.listen, ("ingress", index, "listen")) for index, ingress in enumerate(config.ingress)
    ]
    if config.observe is not None:
        others.append((config.observe.listen, ("observe", "listen")))
    for address, where in others:
        for other, owner in seen:
            if address.collides(other):
                yield Problem(where, f"{address} collides with {owner}, which listens on {other}")
                break
        seen.append((address, dotted(where)))


def _plain_listeners(config: RelayConfig) -> Iterator[Problem]:
    uses_basic = any(sender.basic for tenant in config.tenants.values() for sender in tenant.senders)
    for index, ingress in enumerate(config.ingress):
        if ingress.tls is None and not ingress.listen.is_loopback:
            what = "passwords and tokens" if uses_basic else "tokens"
            yield Problem(
                ("ingress", index), f"without tls, {what} and payloads cross the network readable; add tls, "
                "or listen on 127.0.0.1 behind a proxy that ends TLS",
            )  # fmt: skip


# --- files


def _files(config: RelayConfig) -> Iterator[Problem]:
    tls = config.tunnel.tls
    for key in ("certificate", "key", "client_ca"):
        yield from _file(getattr(tls, key), ("tunnel", "tls", key))
    for index, ingress in enumerate(config.ingress):
        for position, pair in enumerate(ingress.tls or ()):
            yield from _pair(pair, ("ingress", index, "tls", position))


def _pair(pair: CertificateConfig, where: Location) -> Iterator[Problem]:
    yield from _file(pair.certificate, (*where, "certificate"))
    yield from _file(pair.key, (*where, "key"))


def _file(path: Path, where: Location) -> Iterator[Problem]:
    if not path.exists():
        yield Problem(where, f"there is no file {path}")
    elif not path.is_file():
        yield Problem(where, f"{path} is not a file")
    elif not os.access(path, os.R_OK):
        yield Problem(where, f"{path} cannot be read; give its permission to the user that runs the relay")


# --- inside a tenant


def _tenant(name: str, tenant: TenantConfig) -> Iterator[Problem]:
    where: Location = ("tenants", name)
    yield from _twice(tenant.locations, (*where, "locations"), "location")
    yield from _twice((sender.name for sender in tenant.senders), (*where, "senders"), "sender", "name")
    yield from _twice((route.name for route in tenant.routes), (*where, "routes"), "route", "name")
    for index, sender in enumerate(tenant.senders):
        yield from _sender(sender, (*where, "senders", index))
    yield from _credentials(tenant, where)
    for index, route in enumerate(tenant.routes):
        yield from _route(name, tenant, route, (*where, "routes", index))


def _twice(names: Iterable[str], where: Location, kind: str, key: str | None = None) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            at = (*where, index) if key is None else (*where, index, key)
            yield Problem(at, f"there is already a {kind} called {name!r} in this tenant")
        seen.add(name)


def _sender(sender: SenderConfig, where: Location) -> Iterator[Problem]:
    if sender.basic is None and sender.bearer is None:
        yield Problem(where, f"sender {sender.name!r} has no credential; give it basic or bearer")
    for index, known in enumerate(sender.bearer.token_hash if sender.bearer else ()):
        if known.is_slow:
            yield Problem(
                (*where, "bearer", "token_hash", index),
                "a token is kept as sha256; make a new one with 'cloud-relay secrets new'",
            )


def _credentials(tenant: TenantConfig, where: Location) -> Iterator[Problem]:
    users: dict[str, str] = {}
    tokens: dict[str, str] = {}
    for index, sender in enumerate(tenant.senders):
        at = (*where, "senders", index)
        if sender.basic:
            owner = users.setdefault(sender.basic.username, sender.name)
            if owner != sender.name:
                yield Problem((*at, "basic", "username"), f"the user name already belongs to sender {owner!r}")
        for position, known in enumerate(sender.bearer.token_hash if sender.bearer else ()):
            owner = tokens.setdefault(known.text, sender.name)
            if owner != sender.name:
                yield Problem((*at, "bearer", "token_hash", position), f"the token already belongs to sender {owner!r}")


def _route(name: str, tenant: TenantConfig, route: RouteConfig, where: Location) -> Iterator[Problem]:
    senders = [sender.name for sender in tenant.senders]
    for index, sender in enumerate(route.senders):
        if sender not in senders:
            yield Problem((*where, "senders", index), _unknown("sender", sender, senders, name))
    if route.to.location not in tenant.locations:
        message = _unknown("location", route.to.location, tenant.locations, name)
        yield Problem((*where, "to", "location"), message)
    if route.match.sub_paths and len(route.match.path) > 1 and route.match.path.endswith("/"):
        yield Problem(
            (*where, "match", "path"), "drop the '/' at the end: the path and all below it match without it; "
            "or say sub_paths: false for exactly this path",
        )  # fmt: skip
    if route.hold >= route.timeout:
        yield Problem((*where, "hold"), "hold must be shorter than timeout, or no time is left for the target")


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


def _owners(config: RelayConfig) -> Iterator[Problem]:
    """One (host, path) has one owner, whichever tenant it is."""
    owners: dict[tuple[str, str], str] = {}
    for name, tenant in config.tenants.items():
        for index, route in enumerate(tenant.routes):
            owner = owners.setdefault((route.match.host, route.match.path), f"{name}/{route.name}")
            if owner != f"{name}/{route.name}":
                yield Problem(
                    ("tenants", name, "routes", index, "match", "path"),
                    f"{route.match.host}{route.match.path} already belongs to route {owner}",
                )


def _idle(config: RelayConfig) -> Iterator[Problem]:
    for name, tenant in config.tenants.items():
        used = {sender for route in tenant.routes for sender in route.senders}
        for index, sender in enumerate(tenant.senders):
            if sender.name not in used:
                yield Problem(("tenants", name, "senders", index), f"no route takes sender {sender.name!r}")


def dotted(where: Location) -> str:
    """The place as people write it: tenants.acme.routes[0].senders[1]."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
