"""From a config to what a push holds: one immutable snapshot, built whole before anything uses it.

Counters and gates live outside and are only looked up here, so that a reload neither forgets what was counted nor
doubles a quota. Realms are new with each config: what was remembered of old credentials is carried over only where
the credential is still the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from cloud_relay.certificates import SenderCertificates
from cloud_relay.config.models import RelayConfig, RouteConfig, SenderConfig, TenantConfig
from cloud_relay.config.parts import SenderLimitsConfig
from cloud_relay.config.tcp import TcpRouteConfig
from cloud_relay.gates import Gate
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics, SenderMetrics
from cloud_relay.oauth.endpoint import TokenEndpoint
from cloud_relay.oauth.form import MAX_FORM
from cloud_relay.realms import RealmMaker, SenderServices, owners_of, schemes_of
from cloud_relay.routing import Route, RoutingTable
from cloud_relay.sender_state import SenderState
from cloud_relay.senders import Realm, Sender
from cloud_relay.tcp.routes import TcpRoute, TcpRouteState
from cloud_relay.trust import NO_TRUST, SenderTrust
from shared.errors import FAULTS

BURST_SECONDS: Final = 10.0
"""How much of its rate a sender may save up when the config names no burst."""

TOKEN_ROUTE: Final = "oauth/token"  # noqa: S105 - a name
"""What token endpoints are called in logs and metrics. No route can have this name."""

TOKEN_TIMEOUT: Final = 10.0
"""Seconds that a request for a token may take: most of it is a slow hash, and the queue before it."""

_QUOTA_FAULTS: Final = {429: FAULTS["quota-exceeded"], 503: FAULTS["quota-exceeded-try-later"]}


class Snapshot(NamedTuple):
    """One config, resolved. `senders` are all of them, by tenant and name."""

    config: RelayConfig
    table: RoutingTable
    realms: dict[str, Realm]
    senders: dict[tuple[str, str], Sender]
    tcp: dict[tuple[str, str], TcpRoute]
    """TCP routes by tenant and name."""

    @property
    def routes(self) -> tuple[Route | TcpRoute, ...]:
        """All of them, those for HTTP first."""
        return (*self.table.routes, *self.tcp.values())


class SnapshotBuilder:
    """Builds snapshots; holds what outlives them."""

    def __init__(self, limits: Limits, metrics: RelayMetrics, services: SenderServices, state: SenderState) -> None:
        self.limits = limits
        self.metrics = metrics
        self.services = services
        self.state = state
        self._tcp_states: dict[tuple[str, str], TcpRouteState] = {}

    def build(self, config: RelayConfig, previous: Snapshot | None = None, trust: SenderTrust = NO_TRUST) -> Snapshot:
        """Resolve a config that has passed its checks. Quotas that changed count from now on, for old pushes too.

        `trust` is what the config's files hold. Without it client certificates and keys from files count for nobody.
        """
        gates: set[tuple[str, str, str]] = set()
        routes: list[Route] = []
        endpoints: list[Route] = []
        realms: dict[str, Realm] = {}
        everybody: dict[tuple[str, str], Sender] = {}
        tcp: dict[tuple[str, str], TcpRoute] = {}
        for name, tenant in config.tenants.items():
            senders = {sender.name: self._sender(name, sender) for sender in tenant.senders}
            everybody |= {(name, sender.name): sender for sender in senders.values()}
            maker = RealmMaker(name, tenant, senders, self.services, trust)
            old = previous.realms.get(name) if previous else None
            realm = realms[name] = maker.realm(old, previous.config.tenants.get(name) if previous else None)
            schemes = {sender.name: schemes_of(sender) for sender in tenant.senders}
            shared = self._shared(name, tenant)
            for one in tenant.tcp_routes:
                tcp[name, one.name] = self._tcp_route(
                    name, one, _certificates(name, one, tenant, senders, trust), shared
                )
            routes += [self._route(name, route, senders, schemes, realm, shared) for route in tenant.routes]
            if shared is not None:
                gates.add((name, "tenant", ""))
            endpoints += self._endpoints(name, tenant, maker, realm)
            gates.update((name, "sender", sender.name) for sender in tenant.senders)
            gates.update((name, "route", route.name) for route in tenant.routes)
            gates.update((name, "tcp", route.name) for route in tenant.tcp_routes)
        for route in routes:
            for sender in route.senders:
                sender.locations.add(route.location)
        self.limits.keep_only(gates)
        self.metrics.keep_only(
            {(tenant, name) for tenant, kind, name in gates if kind == "route"}
            | {(route.tenant, route.name) for route in endpoints},
            {(tenant, name) for tenant, kind, name in gates if kind == "sender"},
        )
        self.services.keys.keep_only(_key_urls(config))
        self.metrics.tcp.keep_only(set(tcp))
        for key in self._tcp_states.keys() - tcp.keys():
            del self._tcp_states[key]
        self.limits.resize(config.limits.in_flight, len(config.tenants))
        return Snapshot(config, RoutingTable(routes, endpoints), realms, everybody, tcp)

    def _sender(self, tenant: str, config: SenderConfig) -> Sender:
        gate = self.limits.gate(tenant, "sender", config.name, *_figures(config.limits))
        metrics = self.metrics.sender(tenant, config.name)
        metrics.expect_every = config.expect_every or 0.0
        sender = Sender(tenant, config.name, gate, metrics)
        sender.is_disabled = (tenant, config.name) in self.state.disabled()
        return sender

    def _shared(self, name: str, tenant: TenantConfig) -> Gate | None:
        """The tenant's own gate. Without limits there is none, and nothing to count on each push."""
        figures = _figures(tenant.limits)
        return self.limits.gate(name, "tenant", "", *figures) if any(figures) else None

    def _endpoints(self, name: str, tenant: TenantConfig, maker: RealmMaker, realm: Realm) -> list[Route]:
        clients = maker.clients()
        return [
            Route(
                tenant=name,
                name=TOKEN_ROUTE,
                host=config.host.encode("ascii"),
                path=config.path.encode("ascii"),
                sub_paths=False,
                location="",
                target="",
                senders=frozenset(),
                realm=realm,
                gate=Gate(),
                metrics=self.metrics.route(name, TOKEN_ROUTE),
                quota_fault=_QUOTA_FAULTS[503],
                max_body=MAX_FORM,
                hold=0.0,
                timeout=TOKEN_TIMEOUT,
                endpoint=TokenEndpoint(name, clients, self.services.tokens, config.lifetime),
            )
            for config in tenant.token_endpoints
        ]

    def _route(
        self,
        tenant: str,
        config: RouteConfig,
        senders: dict[str, Sender],
        schemes: dict[str, set[bytes]],
        realm: Realm,
        shared: Gate | None,
    ) -> Route:
        return Route(
            tenant=tenant,
            name=config.name,
            host=config.match.host.encode("ascii"),
            path=config.match.path.encode("ascii"),
            sub_paths=config.match.sub_paths,
            location=config.to.location,
            target=config.to.target,
            senders=frozenset(senders[name] for name in config.senders),
            realm=realm,
            gate=self.limits.gate(tenant, "route", config.name, *_figures(config.limits)),
            shared=shared,
            metrics=self.metrics.route(tenant, config.name),
            quota_fault=_QUOTA_FAULTS[config.quota_status],
            max_body=config.limits.body,
            hold=config.hold,
            timeout=config.timeout,
            pass_authorization=config.pass_authorization,
            idempotent=config.idempotent,
            upgrades=bool(config.upgrade),
            idle_timeout=config.idle_timeout,
            www_authenticate=realm.challenges(set().union(*(schemes[name] for name in config.senders))),
        )

    def _tcp_route(
        self,
        tenant: str,
        config: TcpRouteConfig,
        certificates: SenderCertificates | None,
        shared: Gate | None,
    ) -> TcpRoute:
        key = (tenant, config.name)
        return TcpRoute(
            tenant=tenant,
            name=config.name,
            location=config.to.location,
            target=config.to.target,
            networks=config.networks,
            certificates=certificates,
            anonymous=Sender(tenant, "", self.limits.open_gate(tenant), SenderMetrics(tenant, "")),
            shared=shared,
            gate=self.limits.gate(tenant, "tcp", config.name, *_figures(config.limits)),
            state=self._tcp_states.setdefault(key, TcpRouteState()),
            metrics=self.metrics.tcp.route(tenant, config.name),
            max_connections=config.limits.connections,
            max_per_source=config.limits.connections_per_source,
            hold=config.hold,
            timeout=config.timeout,
            idle=config.idle,
            tells_ends=config.tell_source,
            arrives_at=config.arrives_at,
        )


def _certificates(
    name: str, route: TcpRouteConfig, tenant: TenantConfig, senders: dict[str, Sender], trust: SenderTrust
) -> SenderCertificates | None:
    """Those that count on a TCP route; None where nobody is asked for one."""
    if route.tls is None or route.tls.client_ca is None:
        return None
    known = [one for one in tenant.senders if one.name in route.senders]
    return SenderCertificates(trust.tcp.get((name, route.name), ()), owners_of(known, senders))


def _figures(limits: SenderLimitsConfig) -> tuple[int, float, float, float, float]:
    """(pushes in flight, pushes a second, burst, bytes a second, burst of bytes), 0 for none."""
    rate = limits.rate or 0.0
    burst = float(limits.burst) if limits.burst is not None else rate * BURST_SECONDS
    byte_rate = limits.bytes or 0.0
    return limits.in_flight or 0, rate, burst, byte_rate, byte_rate * BURST_SECONDS


def _key_urls(config: RelayConfig) -> set[tuple[str, Path | None]]:
    return {
        (issuer.jwks_url, issuer.jwks_ca)
        for tenant in config.tenants.values()
        for issuer in tenant.issuers
        if issuer.jwks_url is not None
    }
