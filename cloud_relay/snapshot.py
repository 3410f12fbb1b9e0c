"""From a config to what a push holds: one immutable snapshot, built whole before anything uses it.

Counters and gates live outside and are only looked up here, so that a reload neither forgets what was counted nor
doubles a quota. Realms are new with each config: what was remembered of old credentials is carried over only where
the credential is still the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cloud_relay.config.models import RelayConfig, RouteConfig, SenderConfig, SenderLimitsConfig, TenantConfig
from cloud_relay.credentials import Basic, BasicUser, Bearer, BearerToken
from cloud_relay.hashing import HashingPool
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics
from cloud_relay.routing import Route, RoutingTable
from cloud_relay.senders import CredentialKind, Realm, Sender
from shared.errors import FAULTS

BURST_SECONDS: Final = 10.0
"""How much of its rate a sender may save up when the config names no burst."""

_QUOTA_FAULTS: Final = {429: FAULTS["quota-exceeded"], 503: FAULTS["quota-exceeded-try-later"]}


class Snapshot(NamedTuple):
    """One config, resolved."""

    config: RelayConfig
    table: RoutingTable
    realms: dict[str, Realm]


class SnapshotBuilder:
    """Builds snapshots; holds what outlives them."""

    def __init__(self, limits: Limits, metrics: RelayMetrics, pool: HashingPool) -> None:
        self.limits = limits
        self.metrics = metrics
        self.pool = pool

    def build(self, config: RelayConfig, previous: Snapshot | None = None) -> Snapshot:
        """Resolve a config that has passed its checks. Quotas that changed count from now on, for old pushes too."""
        gates: set[tuple[str, str, str]] = set()
        routes: list[Route] = []
        realms: dict[str, Realm] = {}
        for name, tenant in config.tenants.items():
            senders = {sender.name: self._sender(name, sender) for sender in tenant.senders}
            realm = realms[name] = self._realm(name, tenant, senders, previous)
            schemes = {sender.name: _schemes(sender) for sender in tenant.senders}
            routes += [self._route(name, route, senders, schemes, realm) for route in tenant.routes]
            gates.update((name, "sender", sender.name) for sender in tenant.senders)
            gates.update((name, "route", route.name) for route in tenant.routes)
        self.limits.keep_only(gates)
        self.metrics.keep_only(
            {(tenant, name) for tenant, kind, name in gates if kind == "route"},
            {(tenant, name) for tenant, kind, name in gates if kind == "sender"},
        )
        self.limits.max_in_flight = config.limits.in_flight
        return Snapshot(config, RoutingTable(routes), realms)

    def _sender(self, tenant: str, config: SenderConfig) -> Sender:
        gate = self.limits.gate(tenant, "sender", config.name, *_figures(config.limits))
        return Sender(tenant, config.name, gate, self.metrics.sender(tenant, config.name))

    def _realm(self, name: str, tenant: TenantConfig, senders: dict[str, Sender], previous: Snapshot | None) -> Realm:
        users = [
            BasicUser(config.basic.username.encode(), senders[config.name], config.basic.password_hash)
            for config in tenant.senders
            if config.basic
        ]
        tokens = [
            BearerToken(known.digest, senders[config.name])
            for config in tenant.senders
            for known in (config.bearer.token_hash if config.bearer else ())
        ]
        kinds: list[CredentialKind] = []
        if users:
            kinds.append(Basic(name, users, self.pool))
        if tokens:
            kinds.append(Bearer(tokens))
        old = previous.realms.get(name) if previous else None
        if old is None or previous is None:
            return Realm(name, kinds)
        return Realm(name, kinds, succeeds=old, same=_unchanged(previous.config.tenants[name], tenant, senders))

    def _route(
        self,
        tenant: str,
        config: RouteConfig,
        senders: dict[str, Sender],
        schemes: dict[str, set[bytes]],
        realm: Realm,
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


def _figures(limits: SenderLimitsConfig) -> tuple[int, float, float]:
    """(pushes in flight, pushes a second, burst), 0 for none."""
    rate = limits.rate or 0.0
    burst = float(limits.burst) if limits.burst is not None else rate * BURST_SECONDS
    return limits.in_flight or 0, rate, burst


def _schemes(sender: SenderConfig) -> set[bytes]:
    return ({Basic.scheme} if sender.basic else set()) | ({Bearer.scheme} if sender.bearer else set())


def _unchanged(old: TenantConfig, new: TenantConfig, senders: dict[str, Sender]) -> dict[str, Sender]:
    """The senders whose credentials are what they were, by name."""
    before = {sender.name: (sender.basic, sender.bearer) for sender in old.senders}
    return {
        sender.name: senders[sender.name]
        for sender in new.senders
        if before.get(sender.name) == (sender.basic, sender.bearer)
    }
