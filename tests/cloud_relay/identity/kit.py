"""A registrar in memory, a clock that stands until it is moved, and connectors that ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.registrar import Issued, Lifetimes, Registrar
from cloud_relay.identity.rollover import creation_events
from cloud_relay.identity.store import Conflict, StateError
from cloud_relay.identity.tokens import create_token
from shared.clock import TrustedClock
from shared.config import HostPort
from shared.pki import issue
from shared.pki.join_token import JoinToken
from shared.pki.requests import make_request

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = ("acme", "walldorf", "c1")
GRACE = timedelta(days=30)
OTHER = ("acme", "walldorf", "c2")
RELAYS = [HostPort("relay.test", 8443)]


class Times:
    """Wall and monotonic time, moved by hand."""

    def __init__(self) -> None:
        self.wall = NOW.timestamp()
        self.monotonic = 100.0

    def pass_by(self, span: timedelta) -> None:
        self.wall += span.total_seconds()
        self.monotonic += span.total_seconds()

    def clock(self) -> TrustedClock:
        return TrustedClock(lambda: self.wall, lambda: self.monotonic)


class MemoryStore:
    """The list in memory. `fail` makes the next appends fail as a full disk does."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.leaves: dict[str, bytes] = {}
        self.fail = False

    async def read(self, after: int = 0, most: int = -1) -> list[Event]:
        return self.events[after:] if most < 0 else self.events[after : after + most]

    async def append(self, after: int, new: Sequence[Event], leaves: Mapping[str, bytes] | None = None) -> list[Event]:
        if self.fail:
            raise StateError("the disk is full")
        if after != len(self.events):
            raise Conflict
        numbered = [event._replace(number=number) for number, event in enumerate(new, after + 1)]
        self.events += numbered
        self.leaves.update(leaves or {})
        return numbered

    async def leaf(self, fingerprint: str, at: datetime) -> bytes | None:
        return self.leaves.get(fingerprint)

    async def close(self) -> None:
        """Nothing is open."""


class Holder(NamedTuple):
    """A connector that has shown a certificate."""

    key: tuple[str, str, str]
    fingerprint: str


class Office:
    """A registrar with all that it needs."""

    def __init__(self, folder: Path, lifetimes: Lifetimes | None = None) -> None:
        self.times = Times()
        self.store = MemoryStore()
        self.lifetimes = lifetimes or Lifetimes()
        self.keys = KeyFolder(folder)
        self.registrar = self._registrar()

    def _registrar(self) -> Registrar:
        book = Book(GRACE)
        for event in self.store.events:
            book.apply(event)
        known = {("acme", "walldorf"), ("acme", "berlin"), ("globex", "walldorf")}
        return Registrar(
            book, self.store, self.keys, self.times.clock(), self.lifetimes, lambda *place: place in known
        )  # fmt: skip

    async def open(self) -> Office:
        root = issue.create_root(NOW)
        issuing = issue.create_issuing(root, "r1", NOW)
        self.keys.write_root(root)
        self.keys.write_issuing(issuing)
        begin = new_event(Kind.INITIALISED, NOW, trust_domain="qanat.test", relay="r1")
        await self.registrar.commit([begin, *creation_events(1, root, issuing, NOW)])
        return self

    def restart(self) -> None:
        """As after a crash: only what is stored counts."""
        self.registrar = self._registrar()

    @property
    def book(self) -> Book:
        return self.registrar.book

    @property
    def now(self) -> datetime:
        return self.registrar.clock.now()

    async def token(self, key: tuple[str, str, str] = KEY, **options) -> JoinToken:
        token, _ = await create_token(self.registrar, key, RELAYS, **options)
        return token

    async def redeem(self, token: JoinToken, key: issue.PrivateKey | None = None) -> Issued:
        request = make_request(key or issue.new_key())
        return await self.registrar.redeem(token.token, token.secret, request, "192.0.2.7")

    async def join(self, key: tuple[str, str, str] = KEY) -> Holder:
        return holder(await self.redeem(await self.token(key)))

    async def renew(self, who: Holder, key: issue.PrivateKey | None = None) -> Holder:
        return holder(await self.registrar.renew(who, make_request(key or issue.new_key())))


def holder(issued: Issued) -> Holder:
    return Holder(issued.record.connector, issued.record.fingerprint)


def leaf(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificates(issued.certificate)[0]
