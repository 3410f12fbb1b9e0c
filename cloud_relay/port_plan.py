"""From a config to its ports: which addresses there are, and who gets what comes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud_relay.config.checks_tcp import tunnel_names
from cloud_relay.config.models import RelayConfig
from cloud_relay.ports import Destination, NameTable, Sorting
from cloud_relay.ports.networks import Network
from shared.config import Listen
from shared.observe import NAME as OBSERVE

if TYPE_CHECKING:
    import socket

    from shared.tcp.head import Ends

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
        self.must_look = False


def plan_ports(
    config: RelayConfig,
    tunnel: Destination,
    ingress: Sequence[Destination],
    tcp: TcpDestinations,
    *,
    must_look: bool = False,
) -> dict[str, PlannedPort]:
    """All ports of a config that has passed its checks, by a key that stays the same while the address does.

    `must_look`: the tunnel's destination wants to see the ClientHello.
    """
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
        of_tunnel.default, of_tunnel.must_look = tunnel, must_look
    else:
        of_tunnel.names.update(dict.fromkeys(tunnel_names(config), tunnel))
    return {key: _planned(port) for key, port in drafts.items()}


def addresses(config: RelayConfig) -> list[tuple[str, Listen]]:
    """Every address that the config listens on, once, and the key that asks for it."""
    tcp = {(tenant, route.name): _NOBODY for tenant, known in config.tenants.items() for route in known.tcp_routes}
    planned = plan_ports(config, _NOBODY, [_NOBODY] * len(config.ingress), tcp).values()
    observed = [(OBSERVE, config.observe.listen)] if config.observe is not None else []
    return [(one.where, one.listen) for one in planned] + observed


class _Nobody:
    """In place of a destination where only addresses count."""

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        sock.close()


_NOBODY: Final = _Nobody()


def _planned(draft: _Draft) -> PlannedPort:
    sorting = Sorting(draft.default, NameTable(draft.names), draft.proxy_from, draft.must_look)
    return PlannedPort(draft.listen, draft.where, sorting, tuple(dict.fromkeys(draft.kinds)), draft.is_tls)
