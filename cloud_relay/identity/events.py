"""What happened, as an append-only, numbered list. All that counts follows from it (`book`), and nothing else does.

An event is a kind and a flat JSON object. Kinds and fields are only ever added, so that an older list can always be
read. No event holds a secret: tokens stand as hashes, certificates are public.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

Value = str | int | float | bool | None | list[str]


class Kind(enum.StrEnum):
    """What can happen."""

    INITIALISED = "initialised"
    """trust_domain, relay"""
    ROOT_CREATED = "root-created"
    """generation, certificate (PEM)"""
    CROSS_SIGNED = "cross-signed"
    """generation, by (the generation that vouches for it), certificate (PEM)"""
    ISSUING_CREATED = "issuing-created"
    """generation, certificate (PEM)"""
    ROLL_OVER = "roll-over"
    """step (Step), generation: the one that comes or goes; by, where an operator took it"""
    ROOT_TRUSTED = "root-trusted"
    """tenant, location, connector, pins: what this connector said it trusts"""
    SKIPPED = "skipped"
    """tenant, location, connector: the roll-over waits for it no longer"""
    TOKEN_CREATED = "token-created"  # noqa: S105  # a name
    """token, hash, tenant, location, connector, expires (Unix seconds), targets (list or null), pin, by"""
    TOKEN_REVOKED = "token-revoked"  # noqa: S105  # a name
    """token"""
    TOKEN_USED = "token-used"  # noqa: S105  # a name
    """token, key, fingerprint"""
    TOKEN_MISUSED = "token-misused"  # noqa: S105  # a name
    """token, key, peer: another key than the one that used it"""
    ISSUED = "issued"
    """fingerprint, serial, generation, tenant, location, connector, key, not_before, not_after (Unix), via"""
    REVOKED = "revoked"
    """scope (Scope), and fingerprint or tenant, location, connector; reason, by"""
    BLOCKED = "blocked"
    """tenant, location, connector; reason, by"""
    UNBLOCKED = "unblocked"
    """tenant, location, connector"""
    CLOCK_ACCEPTED = "clock-accepted"
    """by: the operator says that the clock is right, although an earlier event is of a later time"""
    RESTORED = "restored"
    """backup_at (Unix), backup_number: what was issued since is not known, and is taken in once it is shown"""


class Step(enum.StrEnum):
    """The steps of a roll-over of the CA."""

    PUBLISHED = "published"
    SWITCHED = "switched"
    RETIRED = "retired"
    ROLLED_BACK = "rolled-back"
    COMPROMISED = "compromised"


class Scope(enum.StrEnum):
    """How much a revocation ends. All of it until now; what is issued later is not touched."""

    CERTIFICATE = "certificate"
    CONNECTOR = "connector"
    LOCATION = "location"
    TENANT = "tenant"


class Via(enum.StrEnum):
    """How a certificate came to be known."""

    TOKEN = "token"  # noqa: S105  # a name
    RENEWAL = "renewal"
    RESTORE = "restore"


class Event(NamedTuple):
    """One line of the list. `number` counts from 1 without gaps, 0 before it is stored; `at` is aware UTC."""

    number: int
    at: datetime
    kind: Kind
    data: Mapping[str, Value]

    def text(self, key: str) -> str:
        """A field that is a text."""
        value = self.data[key]
        if not isinstance(value, str):
            raise TypeError(f"{self.kind}: {key} is {type(value).__name__}, not a text")
        return value

    def seconds(self, key: str) -> datetime:
        """A field that is a time, in Unix seconds."""
        value = self.data[key]
        if not isinstance(value, int | float):
            raise TypeError(f"{self.kind}: {key} is no time")
        return datetime.fromtimestamp(value, UTC)

    def whole(self, key: str) -> int:
        """A field that is a whole number."""
        value = self.data[key]
        if type(value) is not int:
            raise TypeError(f"{self.kind}: {key} is no whole number")
        return value

    def texts(self, key: str) -> list[str] | None:
        """A field that is a list of texts, or null."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, list):
            raise TypeError(f"{self.kind}: {key} is no list")
        return value

    @property
    def connector(self) -> tuple[str, str, str]:
        """(tenant, location, connector)."""
        return self.text("tenant"), self.text("location"), self.text("connector")


def new_event(kind: Kind, at: datetime, **data: Value) -> Event:
    """An event that is not stored yet."""
    return Event(0, at, kind, data)


def dump(event: Event) -> bytes:
    """Its data as JSON."""
    return orjson.dumps(dict(event.data), option=orjson.OPT_SORT_KEYS)


def load(number: int, at: float, kind: str, data: bytes) -> Event:
    """A stored event; ValueError for a kind that only a newer version knows: its state must not be guessed at."""
    try:
        known = Kind(kind)
    except ValueError:
        msg = f"event {number} is of the kind {kind!r}, which this version does not know"
        raise ValueError(msg) from None
    return Event(number, datetime.fromtimestamp(at, UTC), known, orjson.loads(data))
