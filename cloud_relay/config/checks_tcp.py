"""What must hold of TCP routes: who may send, who owns a server name, and who may share a port."""

from __future__ import annotations

from collections.abc import Iterator

from cloud_relay.config.models import RelayConfig, TenantConfig
from cloud_relay.config.tcp import TcpRouteConfig
from shared.addresses import is_address
from shared.config import Flaw, Listen
from shared.config.problems import Key


def find_tcp_flaws(config: RelayConfig) -> Iterator[Flaw]:
    """Everything that is wrong with TCP routes but the names that they use, and the ports that collide."""
    for name, tenant in config.tenants.items():
        for index, route in enumerate(tenant.tcp_routes):
            yield from _route(route, ("tenants", name, "tcp_routes", index))
        yield from _senders(tenant, ("tenants", name, "tcp_routes"))
    yield from _names(config)
    yield from _ports(config)


def shares_port(config: RelayConfig, one: Listen, other: Listen) -> bool:
    """Whether two listeners with these addresses are one port, whose connections are told apart by server name."""
    if one != other:
        return False
    ingress = [listener for listener in config.ingress if listener.listen == one]
    routes = [route for _, _, route in _all(config) if route.listen == one]
    if len(ingress) > 1 or any(listener.tls is None for listener in ingress):
        return False
    has_tunnel = config.tunnel.listen == one
    if has_tunnel and not tunnel_names(config):
        return False
    return bool(routes) or (has_tunnel and bool(ingress))


def tunnel_names(config: RelayConfig) -> list[str]:
    """The names by which connectors reach the tunnel listener: what tells them from senders on a shared port."""
    return [address.host.lower() for address in config.tunnel.advertise if not is_address(address.host)]


def covers(one: str, other: str) -> bool:
    """Whether some server name belongs to both."""
    if one == other:
        return True
    if one.startswith("*.") and other.startswith("*."):
        return False  # each stands for exactly one label, so they would have to be the same
    wildcard, name = (one, other) if one.startswith("*.") else (other, one)
    return wildcard.startswith("*.") and name.partition(".")[2] == wildcard[2:]


# --- one route


def _route(route: TcpRouteConfig, where: Key) -> Iterator[Flaw]:
    asks = route.tls is not None and route.tls.client_ca is not None
    if not route.networks and not asks:
        yield Flaw(
            where,
            "anybody could send here; say from where (networks: [10.0.0.0/8]), or ask for client certificates "
            "(tls.client_ca and senders)",
        )
    if route.senders and not asks:
        what = "a sealed route's certificates end at the target" if route.is_sealed else "add tls.client_ca"
        yield Flaw((*where, "senders"), f"senders are known by their client certificates; {what}")
    if asks and not route.senders:
        yield Flaw((*where, "senders"), "a CA signs more than the senders that are meant; name those that may send")
    if route.limits.bytes is not None:
        yield Flaw(
            (*where, "limits", "bytes"), "bytes are limited on HTTP routes only; limit connections and their rate"
        )
    if route.hold >= route.timeout:
        yield Flaw((*where, "hold"), "hold must be shorter than timeout, or no time is left for the target")


def _senders(tenant: TenantConfig, where: Key) -> Iterator[Flaw]:
    pinned = {sender.name for sender in tenant.senders if sender.certificate is not None}
    known = {sender.name for sender in tenant.senders}
    for index, route in enumerate(tenant.tcp_routes):
        for position, name in enumerate(route.senders):
            if name in known and name not in pinned:
                yield Flaw(
                    (*where, index, "senders", position),
                    f'sender {name!r} has no certificate; add certificate: {{san: "dns:…"}}, or subject',
                )


# --- between routes


def _all(config: RelayConfig) -> Iterator[tuple[str, int, TcpRouteConfig]]:
    for name, tenant in config.tenants.items():
        for index, route in enumerate(tenant.tcp_routes):
            yield name, index, route


def _names(config: RelayConfig) -> Iterator[Flaw]:
    """One server name has one owner on each port, and one tenant on all of them."""
    claims: list[tuple[str, str, TcpRouteConfig]] = []
    for tenant, index, route in _all(config):
        for position, name in enumerate(route.sni):
            at: Key = ("tenants", tenant, "tcp_routes", index, "sni", position)
            for claimed, owner, other in claims:
                is_twice = claimed == name and other.listen == route.listen
                if is_twice or (owner != tenant and covers(claimed, name)):
                    yield Flaw(at, f"{name} already belongs to route {owner}/{other.name}, as {claimed}")
                    break
            else:
                yield from _claimed_elsewhere(config, route, name, at)
            claims.append((name, tenant, route))


def _claimed_elsewhere(config: RelayConfig, route: TcpRouteConfig, name: str, at: Key) -> Iterator[Flaw]:
    if config.tunnel.listen == route.listen and any(covers(name, own) for own in tunnel_names(config)):
        yield Flaw(at, f"{name} is how connectors reach the tunnel on this port; see tunnel.advertise")
    if any(ingress.listen == route.listen for ingress in config.ingress):
        for tenant, known in config.tenants.items():
            hosts = [(other.match.host, f"route {tenant}/{other.name}") for other in known.routes]
            hosts += [(other.host, f"the token endpoint of tenant {tenant}") for other in known.token_endpoints]
            for host, owner in hosts:
                if covers(name, host):
                    yield Flaw(at, f"{name} would take the host {host} from {owner}")
                    return


def _ports(config: RelayConfig) -> Iterator[Flaw]:
    """Of those that share a port all but one have a name, and TLS in any case."""
    owners: dict[Listen, str] = {one.listen: f"ingress[{index}]" for index, one in enumerate(config.ingress)}
    proxies = {one.listen: one.proxy_from for one in config.ingress}
    shared: dict[Listen, int] = {}
    for _, _, route in _all(config):
        shared[route.listen] = shared.get(route.listen, 0) + 1
    if any(one.listen == config.tunnel.listen and one.proxy_from for one in config.ingress):
        yield Flaw(("tunnel", "listen"), "a port with proxy_from cannot be the tunnel's too: connectors come directly")
    for tenant, index, route in _all(config):
        at: Key = ("tenants", tenant, "tcp_routes", index)
        is_alone = shared[route.listen] == 1 and route.listen not in owners and route.listen != config.tunnel.listen
        if route.listen.port and proxies.setdefault(route.listen, route.proxy_from) != route.proxy_from:
            yield Flaw((*at, "proxy_from"), f"all that share {route.listen} must have the same proxy_from")
        if route.proxy_from and route.listen == config.tunnel.listen:
            yield Flaw((*at, "proxy_from"), "a port with proxy_from cannot be the tunnel's too")
        if route.sni or is_alone or not route.listen.port:
            continue
        if route.tls is None:
            yield Flaw((*at, "listen"), f"{route.listen} is shared, so this route needs sni: a plain one has no names")
        elif route.listen in owners:
            what = f"{route.listen} already goes to {owners[route.listen]} for every other name; give this route sni"
            yield Flaw((*at, "listen"), what)
        owners[route.listen] = f"route {tenant}/{route.name}"
