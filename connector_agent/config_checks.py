"""What must hold between the values of a config, and what is probably not meant.

Nothing is started or changed. Every flaw says where it stands and what to do. What keeps a target closed to everybody,
or open to more than is meant, is an error: this program is a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from connector_agent.config import ConnectorConfig, HeadersConfig, TargetConfig
from connector_agent.headers_policy import CREDENTIALS, is_identity
from connector_agent.proxy import is_loopback
from connector_agent.upstream.connect import refusal
from shared.addresses import is_address
from shared.config import Flaw, HostPort
from shared.config.problems import Key


def find_flaws(config: ConnectorConfig) -> list[Flaw]:
    """Everything that keeps the connector from starting with this config."""
    flaws = [
        Flaw(("relays", index), f"{relay} is listed twice")
        for index, relay in enumerate(config.relays)
        if relay in config.relays[:index]
    ]
    flaws += _identity(config)
    names: set[str] = set()
    for index, target in enumerate(config.targets):
        where: Key = ("targets", index)
        if target.name in names:
            flaws.append(Flaw((*where, "name"), f"there is already a target called {target.name!r}"))
        names.add(target.name)
        flaws += _target(target, where)
    return flaws


def find_warnings(config: ConnectorConfig) -> list[Flaw]:
    """What works, but is probably not meant."""
    warnings = []
    if not config.targets:
        warnings.append(Flaw(("targets",), "no targets: this connector exposes nothing"))
    for index, target in enumerate(config.targets):
        url = target.url
        is_readable = url is not None and url.scheme == "http" and not is_loopback(url.host)
        if is_readable and target.headers.set_from_files:
            warnings.append(
                Flaw(("targets", index, "url"), "the injected credential crosses the network readable; use https")
            )
        allowed = {name.lower().encode("ascii") for name in target.headers.allow}
        for name in sorted(name for name in allowed if not is_identity(name)):
            where = ("targets", index, "headers", "allow")
            warnings.append(Flaw(where, f"{name.decode('ascii')} would pass anyway; allow is for identity headers"))
    return warnings


def _identity(config: ConnectorConfig) -> Iterator[Flaw]:
    if config.tls is None:
        return
    if config.join is not None:
        yield Flaw(("join",), "tls says that the CA is your own, so there is nothing to join: drop join, or tls")
    if not config.relays:
        yield Flaw(("relays",), "required with tls: name the relays to dial: [wss://relay.example.com:443]")


def _target(target: TargetConfig, where: Key) -> Iterator[Flaw]:
    name = target.name
    if (target.url is None) == (target.tcp is None):
        yield Flaw(where, f"target {name!r} needs a url, or tcp, and not both")
        return
    yield from _probe(target, (*where, "probe"))
    if target.tcp is not None:
        yield from _tcp(target, target.tcp, where)
        return
    if target.proxy_protocol:
        yield Flaw((*where, "proxy_protocol"), "the PROXY protocol is for tcp targets; an http one gets Forwarded")
    if not target.allow:
        yield Flaw(
            where,
            f"target {name!r} allows nothing; say what may reach it: allow: [{{methods: [POST], path: /v1/metrics}}]",
        )
    for index, rule in enumerate(target.allow):
        if rule.sub_paths and len(rule.path) > 1 and rule.path.endswith("/"):
            yield Flaw(
                (*where, "allow", index, "path"),
                "drop the '/' at the end: the path and all below it match without it; "
                "or say sub_paths: false for exactly this path",
            )
    if target.upgrade and target.allow and not any("GET" in rule.methods for rule in target.allow):
        yield Flaw(
            (*where, "upgrade"), "a WebSocket begins with GET, which this target allows nowhere; add it to allow"
        )
    yield from _tls(target, where)
    yield from _address(target, where)
    yield from _headers(target.headers, (*where, "headers"))


def _tcp(target: TargetConfig, address: HostPort, where: Key) -> Iterator[Flaw]:
    """What is for HTTP would be ignored here, so it is an error."""
    for key in ("allow", "headers", "host", "tls"):
        if key in target.model_fields_set:
            yield Flaw((*where, key), f"{key} is for targets with a url; a tcp one passes bytes, whatever they are")
    if "body" in target.limits.model_fields_set:
        yield Flaw((*where, "limits", "body"), "body is for targets with a url")
    if "first_byte" in target.timeouts.model_fields_set:
        yield Flaw((*where, "timeouts", "first_byte"), "first_byte is for targets with a url")
    yield from _refused(address.host, (*where, "tcp"), target)


def _probe(target: TargetConfig, where: Key) -> Iterator[Flaw]:
    probe, scheme = target.probe, target.url.scheme if target.url is not None else "tcp"
    if probe.kind == "tls" and scheme != "https":
        yield Flaw((*where, "kind"), "tls is for targets with an https url; write tcp, or leave kind out")
    if probe.kind == "http" and scheme == "tcp":
        yield Flaw((*where, "kind"), "http is for targets with a url; write tcp, or leave kind out")
    if probe.kind != "http":
        for key in sorted(probe.model_fields_set & {"method", "path", "status"}):
            yield Flaw((*where, key), f"{key} is for probes of kind http; add kind: http, or drop {key}")


def _tls(target: TargetConfig, where: Key) -> Iterator[Flaw]:
    tls = target.tls
    if tls is None:
        return
    if target.url is not None and target.url.scheme == "http":
        yield Flaw((*where, "tls"), "the url is http, so there is no TLS; write https, or drop tls")
    if (tls.certificate is None) != (tls.key is None):
        yield Flaw((*where, "tls"), "certificate and key are given together or not at all")


def _address(target: TargetConfig, where: Key) -> Iterator[Flaw]:
    """An address in the url can be judged now; a name is when it is resolved, each time."""
    if target.url is not None:
        yield from _refused(target.url.host, (*where, "url"), target)


def _refused(host: str, where: Key, target: TargetConfig) -> Iterator[Flaw]:
    reason = refusal(host, target.networks) if is_address(host) else None
    if reason is not None:
        yield Flaw(where, f"{host} {reason}; it would never be dialled")


def _headers(headers: HeadersConfig, where: Key) -> Iterator[Flaw]:
    seen: dict[str, str] = {}
    lists: dict[str, Iterable[str]] = {
        "set": headers.set,
        "set_from_files": headers.set_from_files,
        "remove": headers.remove,
        "allow": headers.allow,
    }
    for key, names in lists.items():
        yield from _twice(key, names, seen, where)
    for name in headers.set:
        if name.lower().encode("ascii") in CREDENTIALS:
            yield Flaw((*where, "set", name), f"{name} is a secret; it belongs into a file, see set_from_files")


def _twice(key: str, names: Iterable[str], seen: dict[str, str], where: Key) -> Iterator[Flaw]:
    for index, name in enumerate(names):
        first = seen.setdefault(name.lower(), key)
        if first != key or sum(name.lower() == other.lower() for other in names) > 1:
            part: str | int = name if key.startswith("set") else index
            yield Flaw((*where, key, part), f"{name} stands in {first} too; say one thing about it")
