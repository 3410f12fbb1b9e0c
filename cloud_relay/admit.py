"""Who may open a tunnel. `admit` is the only maker of an Identity; nothing else in the relay reads a certificate.

TLS has verified the chain and nothing else: the tunnel's listener looks at no dates, since only a client that got in
can be told why it is refused.
"""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.errors import FAULTS, Fault
from shared.pki.spiffe import ConnectorId, parse_spiffe_id

TUNNEL_PATH: Final = "/"

_UNREADABLE: Final = (
    ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm,
)  # fmt: skip
"""What the library raises on certificates that are none."""


class Identity(NamedTuple):
    """A connector, proven by its certificate. `fingerprint` is SHA-256 in hex, `not_after` aware UTC."""

    tenant: str
    location: str
    connector: str
    fingerprint: str
    not_after: datetime

    def __str__(self) -> str:
        return f"{self.tenant}/{self.location}/{self.connector}"

    @property
    def key(self) -> tuple[str, str, str]:
        """(tenant, location, connector): what one running instance may hold."""
        return self[:3]


class Refusal(NamedTuple):
    """Why not. `detail` says what stands in the client's own certificate; the client is told it."""

    fault: Fault
    detail: str = ""


class Policy(Protocol):
    """What the relay's config and state say. Asked at each handshake, and again for sessions that are attached."""

    @property
    def trust_domain(self) -> str:
        """The first part of every SPIFFE id that counts here."""

    def knows(self, tenant: str, location: str) -> bool:
        """Whether the config has them."""

    def is_revoked(self, fingerprint: str) -> bool:
        """Whether this certificate was withdrawn."""

    def is_blocked(self, tenant: str, location: str, connector: str) -> bool:
        """Whether this connector is barred, whatever its certificate."""


class _Refused(Exception):
    def __init__(self, code: str, detail: str = "") -> None:
        self.refusal = Refusal(FAULTS[code], detail)


def admit(certificate_der: bytes | None, path: str, now: datetime, policy: Policy) -> Identity | Refusal:
    """Judge a client by the certificate that it proved to hold (DER, None for none) and the path it asks for."""
    try:
        if path != TUNNEL_PATH:
            raise _Refused("wrong-path")
        if certificate_der is None:
            raise _Refused("certificate-required")
        return _identify(_parse(certificate_der), now, policy)
    except _Refused as error:
        return error.refusal
    except _UNREADABLE:
        return Refusal(FAULTS["certificate-wrong-identity"], "It cannot be read.")


def judge_again(identity: Identity, now: datetime, policy: Policy) -> Refusal | None:
    """Judge a connector that was admitted earlier: dates pass, and config and revocations change."""
    try:
        _check_date(identity.not_after, now)
        _check_policy(identity, policy)
    except _Refused as error:
        return error.refusal
    return None


def _parse(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # A serial number that RFC 5280 forbids is for the CA to mend; nothing here hangs on it.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(der)


def _identify(certificate: x509.Certificate, now: datetime, policy: Policy) -> Identity:
    if now < certificate.not_valid_before_utc:
        raise _Refused("certificate-not-yet-valid", f"It is valid from {certificate.not_valid_before_utc:%FT%TZ}.")
    _check_date(certificate.not_valid_after_utc, now)
    extensions = certificate.extensions
    _check_usage(extensions)
    spiffe = _spiffe_id(extensions)
    if spiffe.trust_domain != policy.trust_domain:
        raise _Refused("certificate-wrong-identity", f"It is for the trust domain {spiffe.trust_domain}.")
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    identity = Identity(spiffe.tenant, spiffe.location, spiffe.connector, fingerprint, certificate.not_valid_after_utc)
    _check_policy(identity, policy)
    return identity


def _check_date(not_after: datetime, now: datetime) -> None:
    if now > not_after:
        raise _Refused("certificate-expired", f"It expired at {not_after:%FT%TZ}.")


def _check_usage(extensions: x509.Extensions) -> None:
    """A TLS client's leaf, and said to be one: a certificate without the extension may be used for anything."""
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise _Refused("certificate-wrong-usage", "It has no extended key usage.") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise _Refused("certificate-wrong-usage", "Its extended key usage has no clientAuth.")
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return
    if constraints.ca:
        raise _Refused("certificate-wrong-usage", "It is a CA's.")


def _spiffe_id(extensions: x509.Extensions) -> ConnectorId:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise _Refused("certificate-wrong-identity", "It has no subject alternative name.") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:  # SPIFFE X.509-SVID, section 2: exactly one
        raise _Refused("certificate-wrong-identity", f"It has {len(uris)} URIs, not one.")
    try:
        spiffe = parse_spiffe_id(uris[0])
    except ValueError as error:
        raise _Refused("certificate-wrong-identity", "Its URI is no SPIFFE id of ours.") from error
    if not isinstance(spiffe, ConnectorId):
        raise _Refused("certificate-wrong-identity", "It is a relay's.")
    return spiffe


def _check_policy(identity: Identity, policy: Policy) -> None:
    """The certificate itself first: what is revoked learns nothing about the config."""
    if policy.is_revoked(identity.fingerprint):
        raise _Refused("certificate-revoked")
    if policy.is_blocked(*identity.key):
        raise _Refused("connector-blocked")
    if not policy.knows(identity.tenant, identity.location):
        raise _Refused("unknown-location")
