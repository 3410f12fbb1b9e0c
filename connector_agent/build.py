"""From the config to targets: secrets and certificates are read, policies compiled, pools made.

Reading may block and may fail, and is done first (`read_materials`, in a thread while the daemon runs); making targets
of it cannot fail, so that a reload takes all of it or nothing.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from connector_agent.access import AccessRules, Rule
from connector_agent.certificates import InUse, in_use, of_bundle
from connector_agent.config import ConnectorConfig, TargetConfig, TargetTlsConfig
from connector_agent.headers_policy import HeaderPolicy, check_header_value
from connector_agent.targets import Target, Timeouts
from connector_agent.tcp.target import TcpTarget
from connector_agent.upstream.connect import Endpoint
from connector_agent.upstream.pool import UpstreamPool
from shared.pki.files import PkiError, read_private
from shared.pki.tls import load_certificates, target_client_context

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from connector_agent.metrics import ConnectorMetrics
    from shared.errors import LocalFault

HTTP_IDLE: Final = 60.0
TCP_IDLE: Final = 3600.0
"""Seconds of `timeouts.idle` where the config says nothing: an answer that stalls is lost, a syslog line may wait."""

OnFault = Callable[[str, "LocalFault"], None]
"""Takes a target's name and why a connect to it failed."""


class Materials(NamedTuple):
    """What a target's files hold: header values by name, and the TLS context with a hash of what it was made of."""

    secrets: dict[str, str]
    context: ssl.SSLContext | None
    digest: bytes
    certificates: tuple[InUse, ...] = ()


def read_materials(config: ConnectorConfig) -> dict[str, Materials]:
    """Read all files that targets name. PkiError names the file and the remedy, never what is in it."""
    now = datetime.now(UTC)
    contexts: dict[tuple[Path | None, ...], tuple[ssl.SSLContext, bytes]] = {}
    materials = {}
    for target in config.targets:
        context, digest = None, b""
        certificates: tuple[InUse, ...] = ()
        if target.url is not None and target.url.scheme == "https":
            tls = target.tls or TargetTlsConfig()
            files = (tls.ca, tls.certificate, tls.key)
            if files not in contexts:
                contexts[files] = (target_client_context(*files), _digest(files))
            context, digest = contexts[files]
            certificates = _certificates(target.name, tls, now)
        secrets = {name: _read_secret(path, name) for name, path in target.headers.set_from_files.items()}
        materials[target.name] = Materials(secrets, context, digest, certificates)
    return materials


def target_certificates(materials: Mapping[str, Materials]) -> list[InUse]:
    """What the targets' TLS stands on."""
    return [one for material in materials.values() for one in material.certificates]


def make_targets(
    config: ConnectorConfig,
    materials: dict[str, Materials],
    metrics: ConnectorMetrics,
    loop: AbstractEventLoop,
    on_fault: OnFault,
) -> list[Target]:
    """A target for each of the config's. Nothing is connected yet."""
    return [
        _make_target(target, materials[target.name], metrics, loop, on_fault)
        for target in config.targets
        if target.url is not None
    ]


def make_tcp_targets(config: ConnectorConfig, metrics: ConnectorMetrics) -> list[TcpTarget]:
    """The same for those of kind tcp."""
    return [
        TcpTarget(
            target.name,
            Endpoint(target.tcp.host, target.tcp.port, None, target.networks, target.timeouts.connect),
            metrics.tcp.target(target.name),
            max_connections=target.limits.connections,
            idle=target.timeouts.idle or TCP_IDLE,
            tells_source=target.proxy_protocol,
            probe=target.probe.spec("tcp"),
            fingerprint=target,
        )
        for target in config.targets
        if target.tcp is not None
    ]


def _make_target(
    config: TargetConfig, materials: Materials, metrics: ConnectorMetrics, loop: AbstractEventLoop, on_fault: OnFault
) -> Target:
    url, name = config.url, config.name
    if url is None:
        raise ValueError(f"target {name!r} has no url")  # config_checks lets none of these pass
    counts = metrics.target(name)
    return Target(
        name,
        str(url),
        AccessRules(Rule(rule.methods, rule.path, rule.sub_paths) for rule in config.allow),
        HeaderPolicy(
            url.authority,
            keep_host=config.host == "keep",
            fixed=config.headers.set,
            secrets=materials.secrets,
            remove=config.headers.remove,
            allow=config.headers.allow,
            only=config.headers.only,
            content_types=config.content_types,
        ),
        UpstreamPool(
            Endpoint(url.host, url.port, materials.context, config.networks, config.timeouts.connect),
            loop,
            max_connections=config.limits.connections,
            counts=counts,
            on_fault=lambda fault: on_fault(name, fault),
        ),
        counts,
        max_body=config.limits.body,
        timeouts=Timeouts(config.timeouts.first_byte, config.timeouts.idle or HTTP_IDLE),
        upgrades=bool(config.upgrade),
        probe=config.probe.spec(url.scheme),
        fingerprint=(config, materials.digest),
    )


def _certificates(name: str, tls: TargetTlsConfig, now: datetime) -> tuple[InUse, ...]:
    found = []
    if tls.certificate is not None:
        own = load_certificates(tls.certificate, "certificate")[0]
        found.append(in_use("target-certificate", name, own))
    if tls.ca is not None:
        found.append(of_bundle("target-ca", name, tls.ca, now))
    return tuple(found)


def _read_secret(path: Path, name: str) -> str:
    try:
        return check_header_value(read_private(path, "header").decode("ascii"))
    except PkiError:
        raise
    except ValueError as error:
        reason = "it is not ASCII" if isinstance(error, UnicodeDecodeError) else str(error)
        msg = f"{path}: cannot be the value of {name}: {reason}"
        raise PkiError(msg) from None


def _digest(files: tuple[Path | None, ...]) -> bytes:
    """Tells whether the files have changed since; they were readable a moment ago."""
    hashed = hashlib.blake2b(digest_size=16)
    for path in files:
        hashed.update(path.read_bytes() if path is not None else b"")
        hashed.update(b"\0")
    return hashed.digest()
