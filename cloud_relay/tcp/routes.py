"""A TCP route: what it resolves to under one config, and what of it outlives a reload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cloud_relay.certificates import EXPIRED, REQUIRED, UNKNOWN
from cloud_relay.ports.networks import Network, is_within
from cloud_relay.senders import SWITCHED_OFF
from cloud_relay.session import exposed_as
from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.certificates import PeerCertificate, SenderCertificates
    from cloud_relay.gates import Gate
    from cloud_relay.senders import Sender
    from cloud_relay.tcp.metrics import TcpRouteMetrics


class TcpRouteState:
    """What of a route outlives reloads: how many connections are open, of each source (see `source_key`) and in all."""

    __slots__ = ("open", "per_source")

    def __init__(self) -> None:
        self.open = 0
        self.per_source: dict[str, int] = {}

    def enter(self, source: str) -> None:
        """Count a connection."""
        self.open += 1
        self.per_source[source] = self.per_source.get(source, 0) + 1

    def leave(self, source: str) -> None:
        """Count its end."""
        self.open -= 1
        left = self.per_source[source] - 1
        if left:
            self.per_source[source] = left
        else:
            del self.per_source[source]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TcpRoute:
    """One TCP route with everything resolved that a connection needs.

    `networks` are those that senders may come from; empty: any, and then `certificates` is there. It says which sender
    a client certificate is; None: nobody is asked for one, and all count as `anonymous`. `shared`: the tenant's limits,
    if it has any. Seconds: `hold` for a connector to be there, `timeout` for the target to take the connection, `hold`
    included, `idle` without a byte either way.
    """

    tenant: str
    name: str
    location: str
    target: str
    networks: tuple[Network, ...]
    certificates: SenderCertificates | None
    anonymous: Sender
    gate: Gate
    shared: Gate | None
    state: TcpRouteState
    metrics: TcpRouteMetrics
    max_connections: int
    max_per_source: int
    hold: float
    timeout: float
    idle: float
    tells_ends: bool
    arrives_at: str = ""
    """For people: the port, and the server names."""
    key: tuple[str, str, str] = field(init=False)

    max_body: ClassVar[int] = 0
    quota_fault: ClassVar[Fault] = FAULTS["quota-exceeded"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.tenant, self.location, exposed_as(self.target, "tcp")))

    def lets_in(self, source: str) -> bool:
        """Whether an address, as a socket names its peer, may connect."""
        return not self.networks or is_within(source, self.networks)

    def judge(self, peer: PeerCertificate | None, now: float) -> Sender | Fault:
        """Who sends, by the client certificate that TLS has verified, now or earlier; None: none was shown. `now` is in
        Unix seconds.

        A chain alone admits nobody: a CA of a company signs more than its senders.
        """
        if self.certificates is None:
            return self.anonymous
        if peer is None:
            return REQUIRED
        sender = peer.sender_of(self.certificates)
        if sender is None:
            return UNKNOWN
        if sender.is_disabled:
            return SWITCHED_OFF
        return sender if peer.is_in_time(now) else EXPIRED

    def __repr__(self) -> str:
        return f"<TcpRoute {self.tenant}/{self.name} -> {self.location}/{self.target}>"
