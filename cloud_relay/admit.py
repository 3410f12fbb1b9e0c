"""Who may open a tunnel. `admit` is the only maker of an Identity; nothing else in the relay reads a certificate.

TLS has verified the chain and nothing else: the tunnel's listener looks at no dates, since only a client that got in
can be told why it is refused. Whose CA it was, is looked at here: one listener trusts those of all tenants.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud_relay.identity.records import ConnectorKey, Standing
from shared.errors import FAULTS, Fault
from shared.pki.spiffe import ConnectorId, parse_spiffe_id
from shared.pki.trust import pin_of

TUNNEL_PATH: Final = "/"

_UNREADABLE: Final = (
    ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm,
)  # fmt: skip
"""What the library raises on certificates that are none."""


class Identity(NamedTuple):
    """A connector, proven by its certificate. `fingerprint` is SHA-256 in hex, the times aware UTC.

    `issuers` are the pins of the CAs above it. `is_renew_only`: it may get a new certificate and nothing else.
    `is_stranger`: the book does not know the certificate, but may take it in, which must be done before it counts.
    `listed`: the certificate (DER) of one whose name stands in the config's table, which may change.
    """

    tenant: str
    location: str
    connector: str
    fingerprint: str
    not_after: datetime
    not_before: datetime = datetime.min.replace(tzinfo=UTC)
    issuers: frozenset[str] = frozenset()
    is_renew_only: bool = False
    is_stranger: bool = False
    listed: bytes = b""

    def __str__(self) -> str:
        return f"{self.tenant}/{self.location}/{self.connector}"

    @property
    def key(self) -> ConnectorKey:
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

    def connector_of(self, certificate: x509.Certificate) -> ConnectorKey | str | None:
        """Whose certificate it is by a table, for those that hold no SPIFFE id of ours: None if it stands in none, a
        text if that cannot be said, for this reason."""

    def trusts(self, tenant: str, issuers: frozenset[str]) -> bool:
        """Whether a certificate below these CAs (`issuers`: their pins) counts for this tenant."""

    def standing(self, identity: Identity, now: datetime) -> Standing:
        """What this certificate of this connector may do at this time."""

    def may_be_taken_in(self, identity: Identity, now: datetime) -> bool:
        """Whether a certificate whose standing is UNKNOWN is one of ours that a restore made us forget."""


class _Refused(Exception):
    def __init__(self, code: str, detail: str = "") -> None:
        self.refusal = Refusal(FAULTS[code], detail)


def admit(chain: Sequence[bytes], path: str, now: datetime, policy: Policy) -> Identity | Refusal:
    """Judge a client by the certificate that it proved to hold and the path it asks for.

    `chain` is that certificate and the CAs' above it, as TLS verified them (DER); empty where it showed none.
    """
    try:
        if path != TUNNEL_PATH:
            raise _Refused("wrong-path")
        if not chain:
            raise _Refused("certificate-required")
        return _identify([_parse(one) for one in chain], now, policy)
    except _Refused as error:
        return error.refusal
    except _UNREADABLE:
        return Refusal(FAULTS["certificate-wrong-identity"], "It cannot be read.")


def judge_again(identity: Identity, now: datetime, policy: Policy) -> Identity | Refusal:
    """Judge a connector that was admitted earlier: dates pass, and config and revocations change."""
    try:
        if identity.listed:
            certificate = _parse(identity.listed)
            if _whose(certificate, certificate.extensions, policy) != identity.key:
                raise _Refused("certificate-wrong-identity", "The relay's table says so no longer.")
        return _judge(identity, now, policy)
    except _Refused as error:
        return error.refusal


def _parse(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # A serial number that RFC 5280 forbids is for the CA to mend; nothing here hangs on it.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(der)


def _identify(chain: Sequence[x509.Certificate], now: datetime, policy: Policy) -> Identity:
    certificate = chain[0]
    extensions = certificate.extensions
    _check_usage(extensions)
    tenant, location, connector = _whose(certificate, extensions, policy)
    identity = Identity(
        tenant, location, connector, certificate.fingerprint(hashes.SHA256()).hex(),
        min(one.not_valid_after_utc for one in chain),  # TLS has looked at no dates, those of the CAs included
        certificate.not_valid_before_utc, frozenset(pin_of(one) for one in chain[1:]),
        listed=certificate.public_bytes(Encoding.DER) if policy.connector_of(certificate) is not None else b"",
    )  # fmt: skip
    return _judge(identity, now, policy)


def _whose(certificate: x509.Certificate, extensions: x509.Extensions, policy: Policy) -> ConnectorKey:
    """By its SPIFFE id; only where it has none in our trust domain, by the table."""
    uris = _uris(extensions)
    if not any(uri.startswith(f"spiffe://{policy.trust_domain}/") for uri in uris):
        listed = policy.connector_of(certificate)
        if isinstance(listed, str):
            raise _Refused("certificate-wrong-identity", listed)
        if listed is not None:
            return listed
    spiffe = _spiffe_id(uris)
    if spiffe.trust_domain != policy.trust_domain:
        raise _Refused("certificate-wrong-identity", f"It is for the trust domain {spiffe.trust_domain}.")
    return spiffe[1:]


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


def _uris(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _spiffe_id(uris: Sequence[str]) -> ConnectorId:
    if len(uris) != 1:  # SPIFFE X.509-SVID, section 2: exactly one
        raise _Refused("certificate-wrong-identity", f"It has {len(uris)} URIs, not one.")
    try:
        spiffe = parse_spiffe_id(uris[0])
    except ValueError as error:
        raise _Refused("certificate-wrong-identity", "Its URI is no SPIFFE id of ours.") from error
    if not isinstance(spiffe, ConnectorId):
        raise _Refused("certificate-wrong-identity", "It is a relay's.")
    return spiffe


def _judge(identity: Identity, now: datetime, policy: Policy) -> Identity:
    """The certificate itself first: what is foreign or revoked learns nothing about the config."""
    if not policy.trusts(identity.tenant, identity.issuers):
        raise _Refused("certificate-foreign", f"Its CA is none of those of the tenant {identity.tenant}.")
    standing = policy.standing(identity, now)
    is_stranger = standing is Standing.UNKNOWN and policy.may_be_taken_in(identity, now)
    if not is_stranger and standing not in (Standing.GOOD, Standing.RENEW_ONLY):
        raise _Refused(standing.value, _dates(identity, standing))
    if not policy.knows(identity.tenant, identity.location):
        raise _Refused("unknown-location")
    return identity._replace(is_renew_only=standing is Standing.RENEW_ONLY, is_stranger=is_stranger)


def _dates(identity: Identity, standing: Standing) -> str:
    if standing is Standing.EXPIRED:
        return f"It expired at {identity.not_after:%FT%TZ}."
    if standing is Standing.NOT_YET_VALID:
        return f"It is valid from {identity.not_before:%FT%TZ}."
    return ""
