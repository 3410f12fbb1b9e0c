"""The connector's config file as pydantic models. Each field's text gives its unit and what follows from it.

What a single value can tell is checked here; what must hold between values is in `config_checks`. Paths of files are
relative to the file that they stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from connector_agent.config_probe import ProbeConfig
from connector_agent.headers_policy import check_content_type, check_header_name, check_header_value
from shared.config import PRIVATE, ConfigFile, ConfigModel, ConfigPath, Flaw, HostPort, HostPortField
from shared.config.common import LogConfig, ObserveConfig
from shared.config.model import parse_host_port
from shared.config.networks import NetworkField
from shared.http.gate import is_plain_path
from shared.names import Name
from shared.profiles import ProfileName, fill
from shared.protocol.hello import MAX_TARGETS
from shared.units import Duration, Size

_URL: Final = re.compile(r"(https?|wss?)://([^/?#@\s]+)(/?)", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()+,=:@%/-]{0,1023}", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,19}", re.ASCII)
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Url(NamedTuple):
    """Scheme, host and port, nothing else. IPv6 hosts are without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host[:port]` as Host wants it: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_url(value: object, schemes: tuple[str, ...], example: str) -> Url:
    """A URL without path, query and credentials; ValueError says how to write it."""
    if isinstance(value, Url):
        return value
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] not in schemes:
        raise ValueError(f"write scheme, host and port, without a path and without credentials: {example}")
    scheme, authority, _slash = match.groups()
    has_port = re.search(r":[0-9]+\Z", authority) is not None and not authority.endswith("]")
    try:
        host, port = parse_host_port(authority if has_port else f"{authority}:{_DEFAULT_PORTS[scheme]}")
    except ValueError:
        raise ValueError(f"this names no host and port: {example}") from None
    return Url(scheme, host.lower(), port)


def _relay_url(value: object) -> Url:
    return parse_url(value, ("wss",), "wss://relay.example.com:443")


def _target_url(value: object) -> Url:
    return parse_url(value, ("http", "https"), "https://monitoring.corp.local:8443")


def _proxy_url(value: object) -> Url:
    return parse_url(value, ("http",), "http://proxy.corp.local:3128")


def _method(text: str) -> str:
    if _METHOD.fullmatch(text) is None:
        raise ValueError("not a method; write it in capitals: POST")
    if text in _REFUSED_METHODS:
        raise ValueError(f"{text} never reaches a target")
    return text


def _path(text: str) -> str:
    if _PATH.fullmatch(text) is None or not is_plain_path(text.encode("ascii")):
        raise ValueError(
            "not a path that is ever forwarded; it starts with '/' and holds no blanks, '//', dot segments, ';', '?', "
            "'#', '*' or '\\'; there are no patterns: use sub_paths"
        )
    return text


def _not_empty(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("must not be empty")
    return value


def _pattern(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


RelayUrl = Annotated[Url, PlainValidator(_relay_url), _pattern("^wss://[^/?#@]+/?$")]
TargetUrl = Annotated[Url, PlainValidator(_target_url), _pattern("^https?://[^/?#@]+/?$")]
ProxyUrl = Annotated[Url, PlainValidator(_proxy_url), _pattern("^http://[^/?#@]+/?$")]
Method = Annotated[str, AfterValidator(_method)]
RulePath = Annotated[str, AfterValidator(_path)]
HeaderName = Annotated[str, AfterValidator(check_header_name)]
ContentType = Annotated[str, AfterValidator(check_content_type)]
HeaderValue = Annotated[str, AfterValidator(check_header_value)]


class TunnelTlsConfig(ConfigModel):
    """This connector's identity, and whose relays it trusts, where the CA is your own."""

    certificate: ConfigFile
    """PEM file: the connector's certificate first, then the intermediate ones."""
    key: ConfigFile
    """PEM file, not encrypted, readable by the connector only."""
    ca: ConfigFile
    """PEM file: the CA certificates that the relay's certificate must come from. An empty one is an error."""


class JoinConfig(ConfigModel):
    """How this connector gets its identity, where the relay is the CA."""

    token_file: ConfigPath
    """A file with a join token (`cloud-relay tokens create`), readable by the connector only. It is read as long as
    there is no identity in state_dir, so it may come later and be removed afterwards."""


class ProxyConfig(ConfigModel):
    """The way out through an HTTP proxy, by CONNECT. Without it the environment counts (https_proxy, no_proxy)."""

    url: ProxyUrl
    """Where the proxy is."""
    auth_file: ConfigFile | None = None
    """A file with one line `user:password`, readable by the connector only."""
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains (".corp.local") and networks that are reached without the proxy."""


class AllowConfig(ConfigModel):
    """What may reach a target; nothing else does."""

    methods: Annotated[tuple[Method, ...], BeforeValidator(_not_empty), Field(max_length=16)]
    """Methods, one by one; there is no wildcard."""
    path: RulePath
    """Compared byte by byte; nothing is decoded or normalised."""
    sub_paths: bool = False
    """Also everything below: `/sap/frun` then allows `/sap/frun/x`, never `/sap/frunny`."""


class HeadersConfig(ConfigModel):
    """Headers that this connector adds, takes away, or lets through although a sender should not choose them."""

    set: Annotated[dict[HeaderName, HeaderValue], PRIVATE] = Field(default_factory=dict)
    """Added, in place of whatever the sender sent in any spelling. No secrets: they belong into files."""
    set_from_files: dict[HeaderName, ConfigFile] = Field(default_factory=dict)
    """Likewise, the value being the file's one line. A changed file counts from the next push on."""
    remove: tuple[HeaderName, ...] = ()
    """Never reach the target."""
    only: tuple[HeaderName, ...] = ()
    """If given, no other headers of a sender pass, save those that say how to read the body and those that the relay
    adds."""
    allow: tuple[HeaderName, ...] = ()
    """Identity headers (X-Scope-OrgID, Remote-User, …) that senders may choose after all."""


class TargetTlsConfig(ConfigModel):
    """TLS to an https target. It is always verified."""

    ca: ConfigFile | None = None
    """PEM file: the CA certificates, or the very certificate, to trust. Without it the system's CAs."""
    certificate: ConfigFile | None = None
    """PEM file: a client certificate, for targets that ask for one."""
    key: ConfigFile | None = None
    """PEM file: its key, not encrypted, readable by the connector only."""


class TargetLimitsConfig(ConfigModel):
    """What one target is spared."""

    body: Annotated[Size, Field(ge=1)] = 64 * 1024 * 1024
    """Bytes of one push's body. The relay has a limit of its own (limits.body of the route), and whichever is lower
    counts: to let larger pushes through, raise both."""
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Connections at once, which is also the number of pushes at once. More wait, up to 5 s; of a tcp target they are
    refused."""


class TimeoutsConfig(ConfigModel):
    """How long a target may take."""

    connect: Annotated[Duration, Field(ge=0.1, le=60)] = 2.0
    """For DNS, TCP and TLS together."""
    first_byte: Annotated[Duration, Field(ge=0.1, le=3600)] = 25.0
    """From the end of the push to the answer's head. The push's own deadline, if earlier, counts too."""
    idle: Annotated[Duration, Field(ge=0.1, le=604_800)] | None = None
    """Between two bytes, of the push while the target does not read, or of the answer: 60 s unless set. After an
    upgrade, and of a tcp target (1 h unless set): without a byte either way."""


class TargetConfig(ConfigModel):
    """One endpoint that this connector exposes under a name."""

    name: Name
    """How routes of the relay call it."""
    profile: ProfileName | None = None
    """What is pushed there: fills `allow`, `content_types`, `headers.only` and `limits.body` where they are left out.
    `connector-agent profiles` shows with what."""
    url: TargetUrl | None = None
    """Where it is: scheme, host, port. The path comes from the push."""
    tcp: HostPortField | None = None
    """In place of url, for TCP connections: host and port. TLS passes through as it is."""
    proxy_protocol: bool = False
    """Whether a tcp target is told the sender's address, by a PROXY header, version 2, at the start."""
    allow: Annotated[tuple[AllowConfig, ...], Field(max_length=1000)] = ()
    """What may reach it. Without an entry nothing could, so that is an error."""
    content_types: Annotated[tuple[ContentType, ...], Field(max_length=64)] = ()
    """If given, a push whose body says to be something else is refused: application/x-protobuf."""
    headers: HeadersConfig = HeadersConfig()
    upgrade: tuple[Literal["websocket"], ...] = ()
    """What a push may ask to become: `[websocket]`, where the route allows it too. Otherwise the header is dropped.
    Each such connection counts against `limits.connections` as long as it lives."""
    host: Literal["replace", "keep"] = "replace"
    """What Host says: the url's host, or what the sender sent."""
    tls: TargetTlsConfig | None = None
    networks: tuple[NetworkField, ...] = ()
    """Where its addresses must lie, whatever DNS says. Link-local and multicast ones are never dialled."""
    limits: TargetLimitsConfig = TargetLimitsConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="before")
    @classmethod
    def _use_profile(cls, values: object) -> object:
        return fill(values, "target")


class MemoryConfig(ConfigModel):
    """What pushes under way may hold."""

    budget: Annotated[Size, Field(ge=1 << 20)] = 256 * 1024 * 1024
    """Bytes of bodies and answers. When it is spent, the push that has been stalled longest with most of them ends."""


class DrainConfig(ConfigModel):
    """What SIGTERM leads to."""

    timeout: Annotated[Duration, Field(le=3600)] = 25.0
    """How long pushes in flight may take to end."""


class ConnectorConfig(ConfigModel):
    """The connector's config file."""

    relays: Annotated[tuple[RelayUrl, ...], BeforeValidator(_not_empty), Field(max_length=16)] = ()
    """The relays to dial, each as wss://host:port. All of them are kept. Without it those that the join token named."""
    state_dir: ConfigPath
    """A folder of this connector's own; made if it is missing. The control socket is in it."""
    tls: TunnelTlsConfig | None = None
    """Only with a CA of your own. Without it the connector looks after its identity itself: it joins once, by
    `connector-agent enroll` or `join`, and then renews its certificate for ever."""
    join: JoinConfig | None = None
    tunnels: Annotated[int, Field(ge=1, le=16)] = 2
    """Tunnels to each relay. With two, the loss of one delays nothing."""
    standby: bool = False
    """Take pushes only for targets that no other connector of the location, not itself on standby, can serve."""
    proxy: ProxyConfig | None = None
    targets: Annotated[tuple[TargetConfig, ...], Field(max_length=MAX_TARGETS)] = ()
    observe: ObserveConfig | None = None
    log: LogConfig = LogConfig()
    memory: MemoryConfig = MemoryConfig()
    drain: DrainConfig = DrainConfig()

    def flaws(self) -> Iterable[Flaw]:
        """What is wrong between values; see `config_checks`."""
        from connector_agent.config_checks import find_flaws

        return find_flaws(self)

    def relay_addresses(self) -> list[HostPort]:
        """Where the relays are."""
        return [HostPort(relay.host, relay.port) for relay in self.relays]
