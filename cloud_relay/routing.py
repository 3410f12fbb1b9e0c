"""Which route a push takes: by host, then by the longest path that matches, segment by segment.

A table is built once per config and never changed. A lookup costs one dictionary access for the host and at most one
for each segment of the deepest route of that host, however many routes there are and however long the path is.

Nothing is normalised: raw bytes are compared with raw bytes. What a path may hold is for the connector to judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from shared.errors import Fault

if TYPE_CHECKING:
    from cloud_relay.gates import Gate
    from cloud_relay.metrics import RouteMetrics
    from cloud_relay.oauth.endpoint import TokenEndpoint
    from cloud_relay.senders import Realm, Sender

RouteKey = tuple[str, str, str]
"""(tenant, location, target): what the registry of tunnels is keyed by."""

_SLASH: Final = 0x2F


class Route:
    """One route with everything resolved that a push needs. Not changed after it is built, save its metrics and gate.

    `path` is raw bytes, with `sub_paths` also everything below it. `key` is for the registry. `max_body` is bytes;
    `hold` and `timeout` seconds: how long a push waits for a connector, and how long for the target's status line (from
    the end of its head, `hold` included). `senders` are those that may use it, `realm` judges their credentials,
    `www_authenticate` is the header's value for a 401. `quota_fault` is the answer to a push over the quota.
    `upgrades`: a push may become a WebSocket, which then ends when nothing moves for `idle_timeout` seconds.
    `shared` is the tenant's own gate, None if it has no limits. `endpoint` answers in a target's place: such a route is
    the relay's own and leads nowhere.
    """

    __slots__ = (
        "endpoint",
        "gate",
        "hold",
        "host",
        "idempotent",
        "idle_timeout",
        "key",
        "location",
        "max_body",
        "metrics",
        "name",
        "pass_authorization",
        "path",
        "quota_fault",
        "realm",
        "senders",
        "shared",
        "sub_paths",
        "target",
        "tenant",
        "timeout",
        "upgrades",
        "www_authenticate",
    )

    def __init__(
        self,
        *,
        tenant: str,
        name: str,
        host: bytes,
        path: bytes,
        sub_paths: bool,
        location: str,
        target: str,
        senders: frozenset[Sender],
        realm: Realm,
        gate: Gate,
        metrics: RouteMetrics,
        quota_fault: Fault,
        max_body: int,
        hold: float,
        timeout: float,
        pass_authorization: bool = False,
        idempotent: bool = False,
        upgrades: bool = False,
        idle_timeout: float = 60.0,
        www_authenticate: bytes = b"",
        endpoint: TokenEndpoint | None = None,
        shared: Gate | None = None,
    ) -> None:
        self.shared = shared
        self.endpoint = endpoint
        self.tenant = tenant
        self.name = name
        self.host = host
        self.path = path
        self.sub_paths = sub_paths
        self.location = location
        self.target = target
        self.key: RouteKey = (tenant, location, target)
        self.senders = senders
        self.realm = realm
        self.gate = gate
        self.metrics = metrics
        self.quota_fault = quota_fault
        self.max_body = max_body
        self.hold = hold
        self.timeout = timeout
        self.pass_authorization = pass_authorization
        self.idempotent = idempotent
        self.upgrades = upgrades
        self.idle_timeout = idle_timeout
        self.www_authenticate = www_authenticate

    def __repr__(self) -> str:
        below = "/…" if self.sub_paths else ""
        where = f"{self.host.decode('ascii', 'replace')}{self.path.decode('ascii', 'replace')}{below}"
        return f"<Route {self.tenant}/{self.name} {where} -> {self.location}/{self.target}>"


class _Host:
    """The routes of one host: those for a path and below in `prefixes`, the others in `exact`."""

    __slots__ = ("depth", "exact", "longest", "prefixes", "root")

    def __init__(self) -> None:
        self.exact: dict[bytes, Route] = {}
        self.prefixes: dict[bytes, Route] = {}
        self.root: Route | None = None
        self.depth = 0
        self.longest = 0

    def add(self, route: Route) -> None:
        if not route.sub_paths:
            self.exact[route.path] = route
        elif route.path == b"/":
            self.root = route
        else:
            self.prefixes[route.path] = route
            self.depth = max(self.depth, route.path.count(b"/"))
            self.longest = max(self.longest, len(route.path))

    def lookup(self, path: bytes) -> Route | None:
        route = self.exact.get(path)
        if route is not None:
            return route
        best = self.root if path[:1] == b"/" else None
        prefixes = self.prefixes
        longest = self.longest
        end = 0
        for _ in range(self.depth):
            end = path.find(b"/", end + 1)
            if end < 0:
                return (prefixes.get(path) if len(path) <= longest else None) or best
            if end > longest:
                break
            best = prefixes.get(path[:end]) or best
        return best


class RoutingTable:
    """All routes of one config."""

    __slots__ = ("_hosts", "routes")

    def __init__(self, routes: Iterable[Route], endpoints: Iterable[Route] = ()) -> None:
        """Routes whose (host, path) are all different; the config's cross checks see to that. `endpoints` are found
        like the others, but are not among the `routes`."""
        self.routes: tuple[Route, ...] = tuple(routes)
        self._hosts: dict[bytes, _Host] = {}
        for route in (*self.routes, *endpoints):
            self._hosts.setdefault(route.host, _Host()).add(route)

    def lookup(self, host: bytes, path: bytes) -> Route | None:
        """The route for a lower-cased host, with or without a port, and a raw path without its query."""
        routes = self._hosts.get(host) or self._hosts.get(_without_port(host))
        return None if routes is None else routes.lookup(path)

    def has_host(self, host: bytes) -> bool:
        """Whether any route has this host: tells an unknown path (404) from an unknown host (421)."""
        return host in self._hosts or _without_port(host) in self._hosts

    def __repr__(self) -> str:
        return f"<RoutingTable {len(self.routes)} routes, {len(self._hosts)} hosts>"


def _without_port(host: bytes) -> bytes:
    """`example.com:8443` → `example.com`, `[::1]:443` → `[::1]`; anything else stays as it is."""
    name, colon, port = host.rpartition(b":")
    if colon and (port.isdigit() or not port) and (b":" not in name or name.endswith(b"]")):
        return name
    return host
