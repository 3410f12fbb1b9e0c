"""What the files of a config say about whom to believe: CAs of senders, by tenant and TCP route; keys of issuers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud_relay.oauth.keyset import KeySet, read_key_file
from shared.pki.tls import load_certificates

if TYPE_CHECKING:
    from cryptography import x509

    from cloud_relay.config import RelayConfig


class SenderTrust(NamedTuple):
    """CA certificates by tenant, key sets by file, and the CA certificates of TCP routes by tenant and route."""

    authorities: Mapping[str, Sequence[x509.Certificate]]
    keys: Mapping[Path, KeySet]
    tcp: Mapping[tuple[str, str], Sequence[x509.Certificate]]


NO_TRUST: Final = SenderTrust({}, {}, {})
"""Believes nobody: for whoever looks at routes only."""


def load_trust(config: RelayConfig) -> SenderTrust:
    """Read the files. PkiError names the one that cannot be used, and the remedy."""
    tenants = config.tenants.items()
    authorities = {
        name: load_certificates(tenant.sender_ca) for name, tenant in tenants if tenant.sender_ca is not None
    }  # fmt: skip
    files = {issuer.jwks_file for _, tenant in tenants for issuer in tenant.issuers if issuer.jwks_file is not None}
    tcp = {
        (name, route.name): load_certificates(route.tls.client_ca)
        for name, tenant in tenants for route in tenant.tcp_routes
        if route.tls is not None and route.tls.client_ca is not None
    }  # fmt: skip
    return SenderTrust(authorities, {path: read_key_file(path) for path in files}, tcp)


def asked_for(config: RelayConfig) -> list[Path]:
    """The bundles of CAs that senders' client certificates may come from; empty if no sender is known by one."""
    return [
        tenant.sender_ca
        for tenant in config.tenants.values()
        if tenant.sender_ca is not None and any(sender.certificate for sender in tenant.senders)
    ]
