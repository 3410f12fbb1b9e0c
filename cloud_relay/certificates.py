"""Client certificates as a sender's credential: verified by TLS, ascribed to a sender here, at each push and later on.

The listener asks for a certificate and trusts the CAs of all tenants at once, so TLS says only that *somebody's* CA
signed it. It counts for a tenant only if a CA of that tenant's own bundle is in the chain that OpenSSL built, and for a
sender only if its whole subject, or one of its alternative names, is pinned there. And it counts only for the host that
the sender named by SNI: whoever chose the connection's certificate by one name cannot push under another.

An identity is made once for a connection and judged anew for each push: against the config in force, and the clock.

A TCP route has one CA bundle of its own, and its connections live long: they are judged at the handshake, after each
reload, and when their certificate ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from shared.errors import FAULTS, Fault
from shared.pki.tls import named_host
from shared.tunnel.tls import verified_chain

if TYPE_CHECKING:
    import ssl

    from cloud_relay.senders import Sender

EXPIRED: Final = FAULTS["sender-certificate-expired"]
WRONG_NAME: Final = FAULTS["server-name-mismatch"]
REQUIRED: Final = FAULTS["sender-certificate-required"]
UNKNOWN: Final = FAULTS["sender-certificate-unknown"]

_UNREADABLE: Final = (
    ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm,
)  # fmt: skip

Pin: TypeAlias = "x509.Name | str"
"""A whole subject, or an alternative name as "dns:push.example.com", "uri:…", "email:…"."""


class PeerCertificate:
    """What a client certificate says, parsed once. `host` is the name that the client gave by SNI, None without one.

    `authorities` are the SHA-256 of the CA certificates in its chain; one that is trusted itself is its own CA. Dates
    are Unix times, the narrowest of the chain.
    """

    __slots__ = ("_found", "authorities", "host", "not_after", "not_before", "pins")

    def __init__(self, chain: Sequence[bytes], host: str | None) -> None:
        """`chain` is DER, the leaf first. ValueError for what cannot be read."""
        parsed = [x509.load_der_x509_certificate(one) for one in chain]
        leaf = parsed[0]
        self.host = None if host is None else host.encode("ascii", "replace")
        self.authorities = frozenset(hashlib.sha256(one).digest() for one in chain[1:] or chain)
        self.not_before = max(one.not_valid_before_utc.timestamp() for one in parsed)
        self.not_after = min(one.not_valid_after_utc.timestamp() for one in parsed)
        self.pins: frozenset[Pin] = frozenset([leaf.subject, *alternative_names(leaf)])
        self._found: tuple[SenderCertificates, Sender | None] | None = None

    def sender_of(self, known: SenderCertificates) -> Sender | None:
        """Whose it is; looked up once for each config."""
        if self._found is None or self._found[0] is not known:
            self._found = (known, known.find(self))
        return self._found[1]

    def is_in_time(self, now: float) -> bool:
        """Whether all of its chain is valid at this Unix time."""
        return self.not_before <= now < self.not_after

    def __repr__(self) -> str:
        return f"<PeerCertificate {sorted(map(str, self.pins))} by {len(self.authorities)} CAs>"


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """The alternative names that can be pinned."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return []
    return [
        *(f"dns:{name.lower()}" for name in names.get_values_for_type(x509.DNSName)),
        *(f"uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier)),
        *(f"email:{name}" for name in names.get_values_for_type(x509.RFC822Name)),
    ]


def read_peer(connection: ssl.SSLObject | None) -> PeerCertificate | None:
    """The client's certificate on a connection whose handshake is over; None without one, or if it cannot be read."""
    chain = () if connection is None else verified_chain(connection)
    if connection is None or len(chain) < 2:  # a leaf that stands for its own CA names no tenant
        return None
    return read_chain(chain, named_host(connection))


def read_chain(chain: Sequence[bytes], host: str | None = None) -> PeerCertificate | None:
    """A chain that TLS has verified, the leaf first; None if OpenSSL took it, but it is so odd that it cannot be
    read."""
    try:
        return PeerCertificate(chain, host)
    except _UNREADABLE:
        return None


class CertificateOwner(NamedTuple):
    """One sender with what is pinned of its certificate; any one of the pins suffices."""

    sender: Sender
    pins: Iterable[Pin]


class SenderCertificates:
    """The client certificates that count in one tenant, or on one TCP route, under one config."""

    __slots__ = ("_authorities", "_owners")

    def __init__(self, authorities: Iterable[x509.Certificate], owners: Iterable[CertificateOwner]) -> None:
        """`authorities` are its own CA certificates. Of one pin there is one owner: the config sees to it."""
        self._authorities: Final = frozenset(fingerprint(one) for one in authorities)
        self._owners: Mapping[Pin, Sender] = {pin: owner.sender for owner in owners for pin in owner.pins}

    def find(self, peer: PeerCertificate) -> Sender | None:
        """Whose certificate this is, whatever its dates. One that two senders' pins fit is nobody's."""
        if self._authorities.isdisjoint(peer.authorities):
            return None
        found = {self._owners[pin] for pin in peer.pins if pin in self._owners}
        return found.pop() if len(found) == 1 else None

    def judge(self, peer: PeerCertificate, host: bytes, now: float) -> Sender | Fault | None:
        """Whose push to `host` this is, at this time (Unix seconds); None if the certificate is nobody's here, and
        something else decides."""
        sender = peer.sender_of(self)
        if sender is None:
            return None
        if peer.host is None or peer.host != without_port(host):
            return WRONG_NAME
        return sender if peer.is_in_time(now) else EXPIRED


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the whole certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def without_port(host: bytes) -> bytes:
    """`push.example.com:443` → `push.example.com`. Addresses are never named by SNI, so they need no care."""
    return host.partition(b":")[0]
