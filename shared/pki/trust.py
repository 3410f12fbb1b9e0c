"""Which root certificates are believed: those that are believed already, and whom they vouch for.

A newer root is vouched for by a cross certificate: its subject and key, signed by an older root. Cross certificates may
form a chain, so that whoever slept through several roll-overs finds the way. Nothing else can add a root.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning

MAX_ROOTS: Final = 16
"""Root and cross certificates that are looked at, each."""

_UNREADABLE: Final = (
    ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.ExtensionNotFound, x509.UnsupportedGeneralNameType,
)  # fmt: skip


class TrustError(ValueError):
    """None of the offered roots can be believed."""


def pin_of(certificate: x509.Certificate) -> str:
    """SHA-256 over the certificate's SubjectPublicKeyInfo in lower-case hex (RFC 7469 §2.4): how a root is named."""
    der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def load_pems(texts: Sequence[str]) -> list[x509.Certificate]:
    """One certificate of each text, or ValueError; at most MAX_ROOTS."""
    if len(texts) > MAX_ROOTS:
        msg = f"{len(texts)} certificates; at most {MAX_ROOTS} are read"
        raise ValueError(msg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            return [x509.load_pem_x509_certificate(text.encode("ascii")) for text in texts]
        except x509.InvalidVersion as error:  # no ValueError, as all others are
            raise ValueError(str(error)) from error


def pem_text(certificate: x509.Certificate) -> str:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def choose_pinned(offered: Iterable[x509.Certificate], pins: Iterable[str], now: datetime) -> list[x509.Certificate]:
    """Those that are roots with one of these pins. TrustError when there is none."""
    wanted = set(pins)
    chosen = [one for one in offered if _has_pin(one, wanted) and _is_root(one, now)]
    if not chosen:
        msg = "none of the offered CA certificates has the pin: this is another relay, or somebody stands in between"
        raise TrustError(msg)
    return chosen


def accept_roots(
    trusted: Sequence[x509.Certificate],
    offered: Sequence[x509.Certificate],
    cross: Sequence[x509.Certificate],
    now: datetime,
) -> list[x509.Certificate]:
    """Those of `offered` that are believed. TrustError when there is none, so that nobody can take all trust away.

    `now` is when the offered roots must be valid; a trusted root that has expired vouches for nobody.
    """
    vouched = [one for one in trusted if _is_valid(one, now)]
    known = {one.public_bytes(serialization.Encoding.DER) for one in trusted}
    open_ends = list(cross[:MAX_ROOTS])
    grew = True
    while grew:
        grew = False
        for one in list(open_ends):
            if _may_vouch(one, now) and any(_has_signed(issuer, one) for issuer in vouched):
                vouched.append(one)
                open_ends.remove(one)
                grew = True
    accepted = [
        one for one in offered[:MAX_ROOTS]
        if one.public_bytes(serialization.Encoding.DER) in known
        or (_is_root(one, now) and any(_is_same(one, witness) for witness in vouched))
    ]  # fmt: skip
    if not accepted:
        msg = "none of the offered roots is vouched for by one that is trusted"
        raise TrustError(msg)
    return accepted


def _has_pin(certificate: x509.Certificate, pins: set[str]) -> bool:
    """A stranger's certificate may have a key that nobody can read."""
    try:
        return pin_of(certificate) in pins
    except _UNREADABLE:
        return False


def _is_same(root: x509.Certificate, witness: x509.Certificate) -> bool:
    return root.subject == witness.subject and pin_of(root) == pin_of(witness)


def _is_root(certificate: x509.Certificate, now: datetime) -> bool:
    return _may_vouch(certificate, now) and _has_signed(certificate, certificate)


def _may_vouch(certificate: x509.Certificate, now: datetime) -> bool:
    """A CA of a root's rank: with no bound on the path below it. An issuing CA, whose key is online, has one, and is
    never taken for a witness: else whoever has that key could make roots."""
    return _is_ca(certificate, now) and _constraints(certificate).path_length is None


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value


def _is_ca(certificate: x509.Certificate, now: datetime) -> bool:
    """A valid CA that may sign certificates (RFC 5280, 4.2.1.9 and 4.2.1.3)."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        return constraints.critical and constraints.value.ca and usage.key_cert_sign and _is_valid(certificate, now)
    except _UNREADABLE:
        return False


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except _UNREADABLE:
        return False
    return True
