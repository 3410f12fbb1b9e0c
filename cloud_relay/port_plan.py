"""From a config to its ports: which addresses there are, and who gets what comes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloud_relay.config.checks_tcp import tunnel_names
from cloud_relay.config.models import RelayConfig
from cloud_relay.ports import Destination, NameTable, Sorting
from cloud_relay.ports.networks import Network
from shared.config import Listen

TcpDestinations = Mapping[tuple[str, str], Destination]
"""TCP routes' entrances by tenant and route."""


class PlannedPort(NamedTuple):
    """One port. `where` is the config key that asks for it first, `kinds` what is behind it, for `status`."""

    listen: Listen
    where: str
    sorting: Sorting
    kinds: tuple[str, ...]
    is_tls: bool


class _Draft:
    """A port while the config is gone through."""

    def __init__(self, listen: Listen, where: str) -> None:
        self.listen = listen
        self.where = where
        self.kinds: list[str] = []
        self.default: Destination | None = None
        self.names: dict[str, Destination] = {}
        self.proxy_from: tuple[Network, ...] = ()
        self.is_tls = True


def plan_ports(
    config: RelayConfig, tunnel: Destination, ingress: Sequence[Destination], tcp: TcpDestinations
) -> dict[str, PlannedPort]:
    """All ports of a config that has passed its checks, by a key that stays the same while the address does."""
    drafts: dict[str, _Draft] = {}

    def draft(listen: Listen, where: str, kind: str) -> _Draft:
        # A port of 0 is another one each time that it is asked for.
        found = drafts.setdefault(str(listen) if listen.port else where, _Draft(listen, where))
        found.kinds.append(kind)
        return found

    of_tunnel = draft(config.tunnel.listen, "tunnel.listen", "tunnel")
    for index, (one, destination) in enumerate(zip(config.ingress, ingress, strict=True)):
        port = draft(one.listen, f"ingress[{index}].listen", "ingress")
        port.default, port.proxy_from, port.is_tls = destination, one.proxy_from, one.tls is not None
    for tenant, known in config.tenants.items():
        for number, route in enumerate(known.tcp_routes):
            port = draft(route.listen, f"tenants.{tenant}.tcp_routes[{number}].listen", "tcp")
            port.proxy_from = route.proxy_from
            destination = tcp[tenant, route.name]
            if route.sni:
                port.names.update(dict.fromkeys(route.sni, destination))
            else:
                port.default, port.is_tls = destination, route.tls is not None
    if len(of_tunnel.kinds) == 1:
        of_tunnel.default = tunnel
    else:
        of_tunnel.names.update(dict.fromkeys(tunnel_names(config), tunnel))
    return {key: _planned(port) for key, port in drafts.items()}


def _planned(draft: _Draft) -> PlannedPort:
    sorting = Sorting(draft.default, NameTable(draft.names), draft.proxy_from)
    return PlannedPort(draft.listen, draft.where, sorting, tuple(dict.fromkeys(draft.kinds)), draft.is_tls)
