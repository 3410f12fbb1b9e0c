"""Certificates without a SPIFFE id of ours, of an operator's own CA: a table says whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cloud_relay.identity.records import ConnectorKey
from shared.pki.tls import dns_names

if TYPE_CHECKING:
    from cloud_relay.config.models import CertificateIdentityConfig


class IdentityTable:
    """`tunnel.tls.identities`, made ready to look certificates up in."""

    __slots__ = ("_dns", "_fingerprints", "_subjects")

    def __init__(self, entries: Sequence[CertificateIdentityConfig]) -> None:
        self._fingerprints = {one.fingerprint: one.connector for one in entries if one.fingerprint is not None}
        self._dns = {one.dns: one.connector for one in entries if one.dns is not None}
        self._subjects = {
            x509.Name.from_rfc4514_string(one.subject): one.connector for one in entries if one.subject is not None
        }

    def find(self, certificate: x509.Certificate) -> ConnectorKey | str | None:
        """The connector; None if no entry fits, a text if several do: which of them is meant must not be guessed."""
        found = [
            self._fingerprints.get(certificate.fingerprint(hashes.SHA256()).hex()),
            self._subjects.get(certificate.subject),
            *(self._dns.get(name) for name in sorted(set(dns_names(certificate)))),
        ]
        fitting = [one for one in found if one is not None]
        if len(fitting) > 1:
            return "More than one entry of tunnel.tls.identities fits it."
        return fitting[0] if fitting else None
