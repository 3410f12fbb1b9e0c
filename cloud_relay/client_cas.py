"""Whose CA is whose, where the operator brings CAs: the relay's, and those of tenants that have their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from cloud_relay.config import RelayConfig
from shared.pki.files import PkiError
from shared.pki.tls import load_certificates
from shared.pki.trust import pin_of


def tenant_files(config: RelayConfig) -> dict[str, Path]:
    """The CA bundles of the tenants that have their own."""
    return {
        name: tenant.connectors.client_ca
        for name, tenant in config.tenants.items()
        if tenant.connectors.client_ca is not None
    }


def load_cas(files: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """The pins of the certificates in each file. PkiError if a file cannot be used, or two files hold CAs of one name.

    The TLS listener trusts all of them and finds an issuer by its name: a tenant whose CA bore the name of another's
    could so keep the other's connectors out.
    """
    owners: dict[x509.Name, tuple[Path, str]] = {}
    pins: dict[str, frozenset[str]] = {}
    for tenant, path in files.items():
        certificates = load_certificates(path)
        pins[tenant] = frozenset(pin_of(one) for one in certificates)
        for one in certificates:
            other, pin = owners.setdefault(one.subject, (path, pin_of(one)))
            if other != path and pin != pin_of(one):
                msg = (
                    f"{path}: the CA {one.subject.rfc4514_string()!r} bears the name of another CA, in {other}: "
                    "give each tenant a CA with a name of its own"
                )
                raise PkiError(msg)
    return pins
