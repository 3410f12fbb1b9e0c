"""What the book holds: certificates, connectors, join tokens and generations of the CA. Times are aware UTC."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from shared.pki.trust import pin_of

ConnectorKey = tuple[str, str, str]
"""(tenant, location, connector)."""


@dataclass(slots=True)
class CertificateRecord:
    """A connector's certificate that the relay has issued. `key` is SHA-256 of its public key in hex."""

    fingerprint: str
    serial: str
    generation: int
    connector: ConnectorKey
    key: str
    not_before: datetime
    not_after: datetime
    via: str
    revoked_at: datetime | None = None
    reason: str = ""


@dataclass(slots=True)
class ConnectorRecord:
    """A connector by name. `targets`: what it may announce, None for anything; `pins`: what it said it trusts."""

    key: ConnectorKey
    certificates: list[CertificateRecord] = field(default_factory=list)
    targets: frozenset[str] | None = None
    pins: frozenset[str] = frozenset()
    blocked_at: datetime | None = None
    reason: str = ""
    is_skipped: bool = False


class TokenState(enum.StrEnum):
    """What has become of a join token."""

    OPEN = "open"
    USED = "used"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(slots=True)
class TokenRecord:
    """A join token, but for its secret: `hash` is SHA-256 of it in hex, `used_by` the key that used it."""

    token: str
    hash: str
    connector: ConnectorKey
    created_at: datetime
    expires: datetime
    targets: frozenset[str] | None
    pin: str
    used_at: datetime | None = None
    used_by: str = ""
    fingerprint: str = ""
    revoked_at: datetime | None = None
    misuses: int = 0

    def state(self, now: datetime) -> TokenState:
        """What has become of it."""
        if self.used_at is not None:
            return TokenState.USED
        if self.revoked_at is not None:
            return TokenState.REVOKED
        return TokenState.EXPIRED if now > self.expires else TokenState.OPEN


class Generation(NamedTuple):
    """One root of ours with its newest issuing CA."""

    number: int
    root: x509.Certificate
    issuing: x509.Certificate | None

    @property
    def pin(self) -> str:
        """How join tokens and connectors name the root."""
        return pin_of(self.root)


class Stage(enum.StrEnum):
    """How far a roll-over is."""

    STEADY = "steady"
    PUBLISHED = "published"
    """A new root is announced; the old one still signs."""
    SWITCHED = "switched"
    """The new one signs; certificates of the old one are being replaced."""


class Standing(enum.StrEnum):
    """What a certificate may do now. Those that may do nothing bear the code of the catalogue that says why."""

    GOOD = "good"
    RENEW_ONLY = "renew-only"
    UNKNOWN = "certificate-unknown"
    REVOKED = "certificate-revoked"
    EXPIRED = "certificate-expired"
    NOT_YET_VALID = "certificate-not-yet-valid"
    BLOCKED = "connector-blocked"


class Trust(NamedTuple):
    """What connectors are told to trust, and what verifies them: `client_roots` also those whose certificates may only
    be renewed."""

    roots: tuple[x509.Certificate, ...]
    cross: tuple[x509.Certificate, ...]
    client_roots: tuple[x509.Certificate, ...]
