"""Which sender a client certificate is. TLS has verified chain and dates; what it is worth is decided here.

A certificate is pinned by one thing that stands in it: a DNS name, a URI, or its whole subject. A chain alone admits
nobody: a CA of a company signs more than its senders.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.senders import Sender

REQUIRED: Final = FAULTS["sender-certificate-required"]
UNKNOWN: Final = FAULTS["sender-certificate-unknown"]

_UNREADABLE: Final = (
    ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm,
)  # fmt: skip


class Pin(NamedTuple):
    """What must stand in a certificate: `kind` is "dns", "uri", "email" or "subject" (RFC 4514)."""

    kind: str
    value: str


class CertificateBook:
    """The senders of one route, by what their certificates say."""

    __slots__ = ("_senders",)

    def __init__(self, senders: Iterable[tuple[Pin, Sender]]) -> None:
        self._senders = dict(senders)

    @property
    def senders(self) -> frozenset[Sender]:
        """All of them."""
        return frozenset(self._senders.values())

    def judge(self, certificate: bytes | None) -> Sender | Fault:
        """The sender that a verified certificate (DER; None: none was shown) belongs to."""
        if certificate is None:
            return REQUIRED
        try:
            found = {self._senders[pin] for pin in _pins(certificate) if pin in self._senders}
        except _UNREADABLE:
            return UNKNOWN
        # One that fits two senders would let whoever orders the config decide which.
        return found.pop() if len(found) == 1 else UNKNOWN


def _pins(der: bytes) -> list[Pin]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # serial numbers are the CA's to mend
        certificate = x509.load_der_x509_certificate(der)
    pins = [Pin("subject", certificate.subject.rfc4514_string())]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return pins
    pins += [Pin("dns", name.lower()) for name in names.get_values_for_type(x509.DNSName)]
    pins += [Pin("uri", uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]
    pins += [Pin("email", one) for one in names.get_values_for_type(x509.RFC822Name)]
    return pins
