"""TCP routes in the relay's config: what is no HTTP request."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from cloud_relay.config.fields import as_list
from cloud_relay.config.parts import CertificateConfig, SenderLimitsConfig, ToConfig
from shared.config import ConfigFile, ConfigModel, ListenField
from shared.config.networks import NetworkField
from shared.names import Name
from shared.units import Duration

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_SERVER_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_ADDRESS: Final = re.compile(r"[0-9.]+")
_ALPN: Final = re.compile(r"[!-~]{1,64}", re.ASCII)


def _server_name(text: str) -> str:
    folded = text.lower()
    if _SERVER_NAME.fullmatch(folded) is None or _ADDRESS.fullmatch(folded):
        raise ValueError("not a server name; write otlp.example.com, or *.example.com for every name one label longer")
    if folded.startswith("*.") and "." not in folded[2:]:
        raise ValueError("a wildcard for a whole top-level domain is never meant")
    return folded


def _alpn(text: str) -> str:
    if _ALPN.fullmatch(text) is None:
        raise ValueError("not a protocol's name; h2 is one")
    return text


ServerName = Annotated[str, AfterValidator(_server_name)]
Alpn = Annotated[str, AfterValidator(_alpn)]


class TcpTlsConfig(CertificateConfig):
    """TLS that ends at the relay."""

    client_ca: ConfigFile | None = None
    """PEM file: the CA certificates that senders' certificates must come from. A route with senders needs it."""
    alpn: Annotated[tuple[Alpn, ...], Field(max_length=8)] = ()
    """Application protocols that are agreed to, as h2 for gRPC. Without them none is chosen."""


class TcpRouteLimitsConfig(SenderLimitsConfig):
    """How much one route takes. `rate` counts new connections; what is over it is reset."""

    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Connections at once."""
    connections_per_source: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """The same from one address, or one IPv6 network of 64 bits."""


class TcpRouteConfig(ConfigModel):
    """TCP connections that arrive at a port, who may send them, and where they go.

    Plain without `tls` and `sni`. With `tls` TLS ends here. With `sni` alone the route is sealed: the relay reads the
    server name in the ClientHello and nothing else, TLS ends at the target.
    """

    name: Name
    """The route's name in logs and metrics. Unique among all routes of the tenant."""
    listen: ListenField
    """Where senders come in. Several routes, and an ingress with TLS, may share one port, told apart by `sni`."""
    sni: Annotated[tuple[ServerName, ...], BeforeValidator(as_list), Field(max_length=256)] = ()
    """Server names that lead here. *.example.com stands for one label more; a whole name goes first."""
    tls: TcpTlsConfig | None = None
    proxy_from: Annotated[tuple[NetworkField, ...], Field(max_length=256)] = ()
    """As of the ingress; the same for all that share a port."""
    networks: Annotated[tuple[NetworkField, ...], Field(max_length=1024)] = ()
    """Where senders may come from. To take all, say so: [0.0.0.0/0, "::/0"]."""
    senders: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    """Senders that may use it, by client certificate; needs tls.client_ca."""
    to: ToConfig
    """The target must be of kind tcp."""
    limits: TcpRouteLimitsConfig = TcpRouteLimitsConfig()
    hold: Annotated[Duration, Field(le=60)] = 3.0
    """How long a connection waits for a connector that exposes the target. As `timeout`, it counts from when the
    connection is ready: after its TLS handshake, ClientHello or PROXY header."""
    timeout: Annotated[Duration, Field(ge=0.1, le=3600)] = 10.0
    """How long until the target has taken the connection, `hold` included."""
    idle: Annotated[Duration, Field(ge=0.1, le=604_800)] = 3600.0
    """How long nothing may move either way. Then both sides are reset."""
    tell_source: bool = True
    """Whether the connector learns the sender's address, for targets that get a PROXY header."""

    @property
    def arrives_at(self) -> str:
        """For people: the port, what TLS does there, and the server names."""
        what = "sealed" if self.is_sealed else "plain" if self.tls is None else "TLS"
        return " ".join([str(self.listen), what, *self.sni])

    @property
    def is_sealed(self) -> bool:
        """Whether TLS passes through."""
        return bool(self.sni) and self.tls is None
