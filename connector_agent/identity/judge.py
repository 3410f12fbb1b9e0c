"""Pure judgements: is a certificate ours to have, and is a relay's certificate valid now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509 import verification

from shared.pki.issue import BACKDATED, PublicKey
from shared.pki.spiffe import ConnectorId, parse_spiffe_id
from shared.tunnel.websocket_client import PeerRejected

MAX_CHAIN: Final = 16
"""Certificates of a chain that are looked at."""

_UNREADABLE: Final = (
    ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip


EARLIEST_WALL, LATEST_WALL = 1.6e9, 4.1e9
"""Unix seconds between which a relay's clock can be right: the years 2020 to 2099."""


class BadCertificate(ValueError):
    """A certificate that we were given is not the one that we may take; the text says why."""


def identity_of(certificate: x509.Certificate) -> ConnectorId:
    """The one connector that a certificate names. BadCertificate otherwise."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        found = parse_spiffe_id(uris[0]) if len(uris) == 1 else None
    except _UNREADABLE as error:
        raise BadCertificate("the certificate names no connector") from error
    if not isinstance(found, ConnectorId):
        raise BadCertificate("the certificate names no connector, or more than one")
    return found


def read_chain(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, own first. BadCertificate where there are none, or too many."""
    try:
        chain = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except _UNREADABLE as error:
        raise BadCertificate("this is no chain of certificates in PEM form") from error
    if len(chain) > MAX_CHAIN:
        raise BadCertificate(f"a chain of {len(chain)} certificates")
    return chain


def check_own(
    chain: Sequence[x509.Certificate],
    public_key: PublicKey,
    identity: ConnectorId,
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    """BadCertificate unless it is for our key and our identity, and leads to a root that we trust, valid now."""
    own = chain[0]
    try:
        is_ours = own.public_key() == public_key
    except Exception as error:  # an algorithm that this library does not know is not ours either
        raise BadCertificate("the certificate's key cannot be read") from error
    if not is_ours:
        raise BadCertificate("the certificate is for another key than the one we asked with")
    named = identity_of(own)
    if named != identity:
        raise BadCertificate(f"the certificate is for {named}, not for {identity}")
    try:
        verifier = verification.PolicyBuilder().store(verification.Store(list(roots))).time(now).build_client_verifier()
        verifier.verify(own, list(chain[1:]))
    except verification.VerificationError as error:
        reason = str(error).partition("\n")[0][:200]
        raise BadCertificate(f"the certificate leads to no trusted root, or is not valid now: {reason}") from error


def issued_at(certificate: x509.Certificate) -> datetime:
    """When a certificate was made: a CA of ours dates it back by BACKDATED."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return start + BACKDATED if start + BACKDATED < end else start


def lifetime(certificate: x509.Certificate) -> timedelta:
    """From when it was made to when it ends."""
    return certificate.not_valid_after_utc - issued_at(certificate)


def is_plausible(wall: object) -> bool:
    """Whether a relay's wall clock, as it came over the network, can be a time at all."""
    return isinstance(wall, int | float) and not isinstance(wall, bool) and EARLIEST_WALL < wall < LATEST_WALL


def judge_relay(der: bytes | None, now: datetime, *, clock_error: float) -> PeerRejected | None:
    """Whether a relay's certificate, which TLS has verified but for the dates, is valid at `now`.

    That of its issuing CA is not looked at: nothing that our CAs sign outlives its issuer. `clock_error`: seconds by
    which this host's wall clock is off, 0.0 where nothing speaks against it.
    """
    try:
        if der is None:
            raise ValueError("none")
        certificate = x509.load_der_x509_certificate(der)
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except _UNREADABLE:
        return PeerRejected("relay-untrusted", "cannot be read.")
    told = f"by this connector's reckoning it is {now:%FT%TZ}"
    if clock_error:
        told += f", and this host's clock is off by {clock_error:+.0f} s"
    if now > end:
        return PeerRejected("relay-expired", f"has expired at {end:%FT%TZ}: {told}.")
    if now < start:
        return PeerRejected("relay-not-yet-valid", f"is not valid before {start:%FT%TZ}: {told}.")
    return None
