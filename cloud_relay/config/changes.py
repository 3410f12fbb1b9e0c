"""What differs between two configs: what a reload must refuse, and what the log says that it changed.

Only names of keys are told, never values: some of them are hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from cloud_relay.config.models import RelayConfig

RESTART_KEYS: Final = (
    ("state_dir",),
    ("trust_domain",),
    ("tunnel", "listen"),
    ("tunnel", "limits"),
    ("identity",),
    ("observe",),
    ("log",),
    ("memory",),
)
"""What is bound once, at the start. The addresses of the ingress come on top; those of TCP routes may change."""


class Change(NamedTuple):
    """One thing that a reload changes: its kind of change, and its name, as "route acme/focused-run"."""

    what: str
    name: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.what}{': ' if self.keys else ''}{', '.join(self.keys)}"


def restart_keys(old: RelayConfig, new: RelayConfig) -> list[str]:
    """The keys that differ and cannot change while the relay runs."""
    changed = [".".join(path) for path in RESTART_KEYS if _at(old, path) != _at(new, path)]
    if (old.tunnel.tls is None) != (new.tunnel.tls is None):
        changed.append("tunnel.tls")
    if [ingress.listen for ingress in old.ingress] != [ingress.listen for ingress in new.ingress]:
        changed.append("ingress.listen")
    elif [ingress.tls is None for ingress in old.ingress] != [ingress.tls is None for ingress in new.ingress]:
        changed.append("ingress.tls")
    return changed


def find_changes(old: RelayConfig, new: RelayConfig) -> list[Change]:
    """Everything that differs, by name."""
    found = list(_fields("relay", old, new, {"tenants"}))
    yet_known = old.tenants.keys() & new.tenants.keys()
    found += _names("tenant", "", old.tenants, new.tenants)
    for tenant in (name for name in new.tenants if name in yet_known):
        before, after = old.tenants[tenant], new.tenants[tenant]
        prefix = f"{tenant}/"
        found += [Change("added", f"location {prefix}{name}") for name in _less(after.locations, before.locations)]
        found += [Change("removed", f"location {prefix}{name}") for name in _less(before.locations, after.locations)]
        found += _fields(f"tenant {tenant}", before, after, {"locations", "senders", "routes", "tcp_routes"})
        found += _names("sender", prefix, _by_name(before.senders), _by_name(after.senders))
        found += _names("route", prefix, _by_name(before.routes), _by_name(after.routes))
        found += _names("route", prefix, _by_name(before.tcp_routes), _by_name(after.tcp_routes))
    return found


def _at(config: BaseModel, path: tuple[str, ...]) -> object:
    value: object = config
    for key in path:
        value = getattr(value, key)
    return value


def _names(kind: str, prefix: str, old: Mapping[str, BaseModel], new: Mapping[str, BaseModel]) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change("removed", f"{kind} {prefix}{name}")
    for name, after in new.items():
        if name not in old:
            yield Change("added", f"{kind} {prefix}{name}")
        elif kind != "tenant":
            yield from _fields(f"{kind} {prefix}{name}", old[name], after, set())


def _fields(name: str, old: BaseModel, new: BaseModel, without: set[str]) -> Iterator[Change]:
    keys = tuple(key for key in type(new).model_fields if key not in without and getattr(old, key) != getattr(new, key))
    if keys:
        yield Change("changed", name, keys)


def _by_name(items: Sequence[Any]) -> dict[str, Any]:
    return {item.name: item for item in items}


def _less(these: Sequence[str], those: Sequence[str]) -> list[str]:
    return [name for name in these if name not in those]
