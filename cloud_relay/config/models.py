"""The relay's config file as pydantic models. Each field's text gives its unit and what follows from it.

What a single value can tell is checked here; what must hold between values is in `checks`. Paths are relative to the
file that they stand in. Credentials are in `credentials`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from cryptography import x509
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cloud_relay.config.credentials import (
    BasicConfig,
    BearerConfig,
    ClientConfig,
    IssuerConfig,
    JwtConfig,
    PinConfig,
    TokenEndpointConfig,
)
from cloud_relay.config.fields import Host, TrustDomain, UrlPath, check_host, some
from cloud_relay.config.parts import Certificates, SenderLimitsConfig, ToConfig
from cloud_relay.config.tcp import TcpRouteConfig
from shared.config import ConfigFile, ConfigModel, ConfigPath, Flaw, HostPortField, ListenField
from shared.config.common import LogConfig, ObserveConfig
from shared.config.networks import NetworkField
from shared.names import Name
from shared.profiles import ProfileName, fill
from shared.units import Duration, Rate, Size

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _fingerprint(text: str) -> str:
    folded = text.replace(":", "").lower()
    if _FINGERPRINT.fullmatch(folded) is None:
        raise ValueError("not a SHA-256 fingerprint: 64 hex digits, as 'openssl x509 -fingerprint -sha256' prints them")
    return folded


def _subject(text: str) -> str:
    try:
        x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise ValueError(
            "not a distinguished name as 'openssl x509 -subject -nameopt RFC2253' prints it: CN=c1,O=Acme,C=DE"
        ) from error
    return text


def _certificate_host(text: str) -> str:
    folded = check_host(text)
    if folded.startswith("["):
        raise ValueError("not a DNS name")
    return folded


def _connector(value: object) -> object:
    """tenant/location/name; a tuple is one that was read already."""
    if not isinstance(value, str):
        return value
    parts = value.split("/")
    if len(parts) != 3:
        raise ValueError("not a connector; write it as tenant/location/name: acme/walldorf/dc1-a")
    return tuple(parts)


class IngressConfig(ConfigModel):
    """One listener for senders."""

    listen: ListenField
    """Where senders come in."""
    tls: Certificates | None = None
    """One certificate or several, of which the sender's SNI chooses; the first serves whoever names none. Without it
    the listener speaks plain HTTP: for senders on this machine, or behind a proxy that ends TLS."""
    client_certificates: bool = True
    """Whether senders are asked for a client certificate as soon as one is known by it. Such a listener speaks TLS 1.3
    only; for senders that know no more than TLS 1.2 keep another one where this is false."""
    proxy_from: Annotated[tuple[NetworkField, ...], Field(max_length=256)] = ()
    """Networks of load balancers that begin each connection with a PROXY header, version 2. Whoever else connects, or
    sends none, is refused; the sender's address is then the one in the header."""


class CertificateIdentityConfig(ConfigModel):
    """Whose certificate it is, for CAs that put no SPIFFE id of ours into theirs: exactly one way to know it."""

    fingerprint: Annotated[str, AfterValidator(_fingerprint)] | None = None
    """SHA-256 of the certificate. It changes with each renewal: the entry must change with it."""
    dns: Annotated[str, AfterValidator(_certificate_host)] | None = None
    """A DNS name among its subject alternative names, not a wildcard."""
    subject: Annotated[str, AfterValidator(_subject)] | None = None
    """Its whole subject as RFC 4514 writes it, compared part by part."""
    connector: Annotated[tuple[Name, Name, Name], BeforeValidator(_connector)]
    """The connector that it stands for: tenant/location/name."""


class TunnelTlsConfig(ConfigModel):
    """The tunnel listener's own certificate, and whose connectors it takes."""

    certificate: ConfigFile
    """PEM file: the relay's certificate first, then the intermediate ones."""
    key: ConfigFile
    """PEM file, not encrypted, readable by the relay only."""
    client_ca: ConfigFile
    """PEM file: the CA certificates that connectors' certificates must come from. An empty one is an error. Tenants
    with a `connectors.client_ca` of their own are bound to that one instead."""
    identities: tuple[CertificateIdentityConfig, ...] = ()
    """Whose those certificates are that hold no SPIFFE id of this trust domain. One that two entries fit is refused."""


class TunnelLimitsConfig(ConfigModel):
    """How many connectors may knock at once."""

    handshakes: Annotated[int, Field(ge=1, le=100_000)] = 512
    """TLS and WebSocket handshakes in progress. More wait in the kernel's queue."""
    handshakes_per_source: Annotated[int, Field(ge=1, le=100_000)] = 128
    """The same from one address, or one IPv6 network of 64 bits. Whole data centers may come from one."""
    handshake_timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """How long one handshake may take."""
    tunnels: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Tunnels attached at once. Each takes some 64 KiB of memory."""
    tunnels_per_connector: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """The same of one connector. It keeps two to each relay, and for a moment twice as many while it renews them."""


class TunnelConfig(ConfigModel):
    """The listener for connectors."""

    listen: ListenField
    """Where connectors come in."""
    advertise: Annotated[tuple[HostPortField, ...], Field(max_length=16)] = ()
    """The public names and ports at which connectors reach this listener: they stand in join tokens and, with the
    relay's own CA, in its certificate."""
    tls: TunnelTlsConfig | None = None
    """Certificates of a CA of your own. Without it the relay is its own CA, made by `cloud-relay init`."""
    limits: TunnelLimitsConfig = TunnelLimitsConfig()


class IdentityConfig(ConfigModel):
    """The relay's own CA. Nothing of it counts with certificates of a CA of your own (tunnel.tls)."""

    leaf_lifetime: Annotated[Duration, Field(ge=2, le=90 * 86_400)] = 7 * 86_400
    """Of connectors' certificates and of the relay's own. All are renewed at half of it."""
    issuing_lifetime: Annotated[Duration, Field(ge=60, le=10 * 365 * 86_400)] = 365 * 86_400
    """Of the issuing CA. It is renewed at half of it, if the root's key is there."""
    root_lifetime: Annotated[Duration, Field(ge=3600, le=30 * 365 * 86_400)] = 3650 * 86_400
    """Of a root that `ca rotate` makes."""
    renewal_grace: Annotated[Duration, Field(le=365 * 86_400)] = 30 * 86_400
    """How long after its end a certificate is still good for getting a new one, and for nothing else: connectors that
    were switched off come back by themselves within it."""
    passphrase_file: ConfigFile | None = None
    """A file with the passphrase by which the CA's keys are encrypted, in one line, readable by the relay only."""


class MemoryConfig(ConfigModel):
    """What pushes may occupy together."""

    budget: Annotated[Size, Field(ge=1 << 20)] = 256 * 1024 * 1024
    """Bytes under way. When it is spent, new pushes get 503, and the push that stalled longest with most is ended."""


class IngressLimitsConfig(ConfigModel):
    """What senders may occupy, all tenants together."""

    in_flight: Annotated[int, Field(ge=1, le=10_000_000)] = 16384
    """Pushes at once. One more gets 503; of the last eighth, also one of a tenant that has more than an equal share."""
    queue: Annotated[int, Field(ge=0, le=10_000_000)] = 8192
    """Pushes over a quota that may wait for their turn, sender by sender; one sender may have as many places as are
    still free, one tenant three times as many. Cloud services let go at the full minute. 0 refuses at once."""
    queue_wait: Annotated[Duration, Field(le=60)] = 3.0
    """How long one of them may wait. Telegraf and OpenTelemetry give up after 5 s."""
    connections: Annotated[int, Field(ge=1, le=10_000_000)] = 16384
    """Sender connections at once, of each listener. One more is closed; of the last eighth, networks (IPv4 /24, IPv6
    /48) have equal shares, and an idle one of the network that has most makes way before a new one is closed."""
    connections_per_source: Annotated[int, Field(ge=1, le=10_000_000)] = 4096
    """The same from one address, or one IPv6 network of 64 bits. A whole cloud region may come from one."""


class DrainConfig(ConfigModel):
    """What happens after SIGTERM. Together the times must be below what the service manager waits before it kills."""

    delay: Annotated[Duration, Field(le=3600)] = 0.0
    """How long new connections are still taken while /readyz says no: until the load balancer has noticed."""
    timeout: Annotated[Duration, Field(le=3600)] = 25.0
    """How long pushes in flight may then take. What is left is cut off."""
    upgrade: Annotated[Duration, Field(le=7200)] = 600.0
    """After `cloud-relay upgrade`: how long the old process serves the connections that it has, before it drains. Only
    TCP connections and WebSockets last that long; those of HTTP end with their next answer, or idle within 75 s."""


class RouteLimitsConfig(SenderLimitsConfig):
    """How much one route takes, from all its senders together."""

    body: Annotated[Size, Field(ge=1)] = 10 * 1024 * 1024
    """Bytes of the largest body. A larger one gets 413 while it arrives, and the connection is closed."""


class SenderConfig(ConfigModel):
    """Who may push, and by which credentials it is known."""

    name: Name
    """The sender's name in routes, logs and metrics. Unique within the tenant."""
    basic: BasicConfig | None = None
    bearer: BearerConfig | None = None
    oauth: ClientConfig | None = None
    """Client id and secret, for which it gets tokens at one of the tenant's `token_endpoints`."""
    jwt: JwtConfig | None = None
    """The claims by which tokens of one of the tenant's `issuers` are known to be its."""
    certificate: PinConfig | None = None
    """What is pinned of its client certificate. On HTTP routes it must come from the tenant's `sender_ca`, on a TCP
    route from that route's `tls.client_ca`."""
    limits: SenderLimitsConfig = SenderLimitsConfig()
    expect_every: Annotated[Duration, Field(ge=1, le=366 * 86400)] | None = None
    """How often at least it should push, as a figure for an alert to compare with; nothing else follows from it. Leave
    it out for senders that push only when there is something to report."""


class MatchConfig(ConfigModel):
    """What arrives at a route."""

    host: Host
    """The host name that the sender pushes to, in any case and without a port."""
    path: UrlPath
    """The path, compared byte by byte."""
    sub_paths: bool = True
    """Whether everything below the path belongs to it too: /sap/frun/x to /sap/frun, but not /sap/frunny."""


class RouteConfig(ConfigModel):
    """What arrives, who may send it, and where it goes."""

    name: Name
    """The route's name in logs and metrics. Unique within the tenant."""
    profile: ProfileName | None = None
    """What is pushed there: fills the path of `match`, `limits.body`, `idempotent` and `quota_status` where they are
    left out. `cloud-relay profiles` shows with what."""
    match: MatchConfig
    senders: Annotated[tuple[Name, ...], some("a route that nobody may use is an error; name its senders")]
    """The tenant's senders that may use it. A route for nobody is an error, one for anybody is not possible."""
    to: ToConfig
    limits: RouteLimitsConfig = RouteLimitsConfig()
    hold: Annotated[Duration, Field(le=60)] = 3.0
    """How long a push waits for a connector that exposes the target. Telegraf and OpenTelemetry give up after 5 s."""
    timeout: Annotated[Duration, Field(ge=0.1, le=3600)] = 30.0
    """How long until the target's status line, from the end of the push's head; from then on idle time-outs count."""
    pass_authorization: bool = False
    """Whether the sender's Authorization and Cookie headers reach the target. They end at the relay otherwise."""
    idempotent: bool = False
    """Whether a push may be sent again although it may have been delivered. Metrics may, events may not."""
    upgrade: tuple[Literal["websocket"], ...] = ()
    """What a push may ask to become: `[websocket]`. The target must allow it too; otherwise the header is dropped."""
    idle_timeout: Annotated[Duration, Field(ge=0.1, le=86400)] = 60.0
    """How long an upgraded connection may be silent both ways. The connector's `timeouts.idle` counts as well."""
    quota_status: Literal[429, 503] = 429
    """The answer to a push over the quota. Prometheus drops on 429 unless told otherwise, and tries again on 503."""

    @model_validator(mode="before")
    @classmethod
    def _use_profile(cls, values: object) -> object:
        return fill(values, "route")


class TenantConnectorsConfig(ConfigModel):
    """What is particular about a tenant's connectors."""

    client_ca: ConfigFile | None = None
    """PEM file: the CA certificates that this tenant's connectors' certificates must come from; those of
    tunnel.tls.client_ca do not count for it, and these count for nobody else."""


class OAuthConfig(ConfigModel):
    """The keys that this relay signs its tokens with."""

    rotate_keys: Annotated[Duration, Field(ge=3600, le=366 * 86400)] = 30 * 86400.0
    """How long one key signs. Each goes on judging what it has signed for as long as that counts."""


class TenantConfig(ConfigModel):
    """An isolated customer."""

    locations: Annotated[tuple[Name, ...], some("a tenant needs at least one location")]
    """Its data centers or network segments. A connector's certificate names one of them."""
    connectors: TenantConnectorsConfig = TenantConnectorsConfig()
    senders: tuple[SenderConfig, ...] = ()
    routes: tuple[RouteConfig, ...] = ()
    limits: SenderLimitsConfig = SenderLimitsConfig()
    """How much all its senders may push together."""
    token_endpoints: tuple[TokenEndpointConfig, ...] = ()
    """Where senders with `oauth` get their tokens."""
    issuers: tuple[IssuerConfig, ...] = ()
    """Foreign issuers whose tokens senders with `jwt` bring along."""
    sender_ca: ConfigFile | None = None
    """PEM file: the CA certificates that this tenant's senders' client certificates must come from."""
    tcp_routes: tuple[TcpRouteConfig, ...] = ()
    """What is no HTTP: syslog, Graphite, OTLP/gRPC, …"""


class ProbesConfig(ConfigModel):
    """How often connectors are asked how their targets are. What a probe does stands in the connectors' configs."""

    interval: Annotated[Duration, Field(ge=1, le=3600)] = 10.0
    """Between two probes of a target that is well."""
    failing_interval: Annotated[Duration, Field(ge=1, le=3600)] = 2.0
    """The same of one that is not: how soon it is noticed that it is back."""
    rate: Annotated[Rate, Field(ge=1, le=10_000)] = 200.0
    """Probes a second of all targets together. Where that is not enough for `interval`, each has to wait longer."""


class RelayConfig(ConfigModel):
    """The whole file."""

    state_dir: ConfigPath
    """A folder of the relay's own, for its control socket and state. Made with mode 0700 if it is not there."""
    trust_domain: TrustDomain
    """The first part of every SPIFFE id that this relay knows: spiffe://<trust domain>/…"""
    tunnel: TunnelConfig
    identity: IdentityConfig = IdentityConfig()
    ingress: Annotated[tuple[IngressConfig, ...], some("a relay needs at least one listener for senders")]
    observe: ObserveConfig | None = None
    log: LogConfig = LogConfig()
    memory: MemoryConfig = MemoryConfig()
    limits: IngressLimitsConfig = IngressLimitsConfig()
    drain: DrainConfig = DrainConfig()
    probes: ProbesConfig = ProbesConfig()
    oauth: OAuthConfig = OAuthConfig()
    tenants: dict[Name, TenantConfig] = Field(default_factory=dict)

    def knows(self, tenant: str, location: str) -> bool:
        """Whether there is this tenant, with this location."""
        known = self.tenants.get(tenant)
        return known is not None and location in known.locations

    def flaws(self) -> Iterable[Flaw]:
        """What does not fit together."""
        from cloud_relay.config.checks import find_flaws

        return find_flaws(self)
