"""Decides who gets a certificate: tokens are redeemed and certificates renewed here, and nowhere else.

Every change is made in three steps under one lock: decide by the book, append to the list, apply to the book. So what
was answered is on the disk, and what could not be written has not happened.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from cryptography import x509

from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event, Kind, Via, new_event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.records import CertificateRecord, ConnectorKey, Standing, TokenRecord, TokenState
from cloud_relay.identity.store import KEEP_LEAVES, Conflict, EventStore, StateError
from shared.clock import TrustedClock
from shared.crash_points import reach
from shared.errors import LocalFault
from shared.logs import get_logger, log_limited
from shared.pki import issue
from shared.pki.files import PkiError
from shared.pki.issue import Authority
from shared.pki.requests import Request, read_request
from shared.pki.spiffe import ConnectorId, connector_id
from shared.pki.trust import pem_text
from shared.tasks import spawn

MAX_UNEXPIRED: Final = 32
"""Certificates of one connector that have not expired: it needs two, and a crash now and then makes another."""

BACKWARDS: Final = timedelta(minutes=5)
"""How much earlier than the last event it may be now. More means that this host's clock is wrong."""

SAME_ANSWER: Final = timedelta(seconds=KEEP_LEAVES)

log = get_logger("relay.identity")


class IdentityFault(LocalFault):
    """A certificate is refused, by a code of the catalogue; the detail may be told to who asked."""


class Issued(NamedTuple):
    """A certificate's chain as PEM, its record, and what to trust with it."""

    certificate: bytes
    record: CertificateRecord
    roots: list[str]
    cross: list[str]


class Holder(Protocol):
    """A connector that has proven who it is: `cloud_relay.admit.Identity`."""

    @property
    def key(self) -> ConnectorKey:
        """(tenant, location, connector)."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, in hex."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long what the CA issues is valid, and how long after its end a leaf may still be renewed."""

    leaf: timedelta = issue.LEAF_LIFETIME
    issuing: timedelta = issue.ISSUING_LIFETIME
    root: timedelta = issue.ROOT_LIFETIME
    grace: timedelta = timedelta(days=30)


Decision = Callable[[], tuple[list[Event], dict[str, bytes]]]
Watcher = Callable[[Sequence[Event]], None]


class Registrar:
    """The one writer of a relay's identity state. `knows` says whether the config has a tenant and location.

    Methods raise IdentityFault for what is refused, StateError when the state cannot be written.
    """

    def __init__(
        self,
        book: Book,
        store: EventStore,
        keys: KeyFolder,
        clock: TrustedClock,
        lifetimes: Lifetimes,
        knows: Callable[[str, str], bool],
    ) -> None:
        self.book = book
        self.store = store
        self.keys = keys
        self.clock = clock
        self.lifetimes = lifetimes
        self.knows = knows
        self.count: Callable[[str, str], None] = _count_nothing
        """Told of each outcome: "token" or "renewal", and "ok" or a code of the catalogue."""
        self._lock = asyncio.Lock()
        self._watchers: list[Watcher] = []
        self._authority: Authority | None = None

    def __repr__(self) -> str:
        return f"<Registrar of {self.book!r}>"

    def on_change(self, watcher: Watcher) -> None:
        """Call `watcher` with what was stored, after it was applied to the book."""
        self._watchers.append(watcher)

    # --- what connectors ask

    async def redeem(self, token: str, secret: str, request: bytes, peer: str) -> Issued:
        """The certificate that a join token is good for; the same one again for the same key, for a day."""
        try:
            issued = await self._redeem(token, secret, request, peer)
        except IdentityFault as fault:
            self.count(Via.TOKEN.value, fault.fault.code)
            raise
        self.count(Via.TOKEN.value, "ok")
        return issued

    async def renew(self, holder: Holder, request: bytes) -> Issued:
        """A new certificate for a connector that has shown a good one; the same one again for the same key."""
        try:
            issued = await self._renew(holder, request)
        except IdentityFault as fault:
            self.count(Via.RENEWAL.value, fault.fault.code)
            raise
        self.count(Via.RENEWAL.value, "ok")
        return issued

    async def take_in(self, certificate: x509.Certificate, key: ConnectorKey) -> bool:
        """Know a certificate of ours that was made between a backup and its restore; whether it is known now."""
        fingerprint = issue.fingerprint(certificate)
        if fingerprint in self.book.certificates:
            return self.book.certificates[fingerprint].connector == key
        generation = self.book.generation
        issuing = generation.issuing
        if issuing is None or not _has_issued(issuing, certificate):
            return False
        if not self.book.may_be_taken_in(certificate.not_valid_before_utc, issue.BACKDATED):
            return False
        request_key = hashlib.sha256(fingerprint.encode()).hexdigest()
        await self.commit([_issued_event(certificate, key, request_key, generation.number, Via.RESTORE, self._now())])
        log.warning("took in a certificate from between backup and restore", connector="/".join(key))
        return True

    async def note_trust(self, key: ConnectorKey, pins: Sequence[str]) -> None:
        """A connector said which of our roots it trusts."""
        ours = {one.pin for one in self.book.generations.values()}
        now_trusted = frozenset(pin for pin in pins if pin in ours)
        connector = self.book.connectors.get(key)
        if connector is None or connector.pins == now_trusted:
            return
        tenant, location, name = key
        await self.commit([new_event(
            Kind.ROOT_TRUSTED, self._now(), tenant=tenant, location=location, connector=name, pins=sorted(now_trusted),
        )])  # fmt: skip

    def root_texts(self) -> tuple[list[str], list[str]]:
        """(roots, cross certificates) as PEM, as connectors are told them."""
        trust = self.book.trust(self.clock.now())
        return [pem_text(one) for one in trust.roots], [pem_text(one) for one in trust.cross]

    # --- what everything else here stands on

    async def commit(self, new: Sequence[Event], leaves: dict[str, bytes] | None = None) -> None:
        """Store and apply events that hang on nothing that could change meanwhile."""
        await self.change(lambda: (list(new), leaves or {}))

    async def change(self, decide: Decision) -> None:
        """Decide under the lock, store, apply. What `decide` raises changes nothing. Cancelled: all or nothing."""
        await asyncio.shield(spawn(self._change(decide), "identity state", _told_elsewhere))

    def authority(self) -> Authority:
        """The issuing CA that signs now. IdentityFault (cannot-issue) if its key cannot be had."""
        generation = self.book.generation
        known = self._authority
        if known is None or known.certificate != generation.issuing:
            try:
                known = self._authority = self.keys.issuing(generation)
            except PkiError as error:
                log_limited(log, "error", "issuing key", "the issuing CA cannot sign", error=str(error))
                raise IdentityFault("cannot-issue", "the key of the issuing CA cannot be used") from error
        return known

    def now(self) -> datetime:
        """The time for what is issued. IdentityFault (cannot-issue) when this host's clock must be wrong."""
        now = self.clock.now()
        last = self.book.last_at
        if last is not None and now < last - BACKWARDS:
            log_limited(log, "error", "clock", "this host's clock is wrong: nothing is issued",
                        now=f"{now:%FT%TZ}", last_event=f"{last:%FT%TZ}")  # fmt: skip
            raise IdentityFault("cannot-issue", f"the relay's clock says {now:%FT%TZ}, before its last event")
        return now

    def identity(self, key: ConnectorKey) -> ConnectorId:
        """The SPIFFE id of a connector of ours."""
        return connector_id(self.book.trust_domain, *key)

    # --- within

    async def _change(self, decide: Decision) -> None:
        async with self._lock:
            new, leaves = decide()
            if not new:
                return
            try:
                stored = await self.store.append(self.book.number, new, leaves)
            except Conflict as error:
                raise StateError("another process has written to the state of this relay") from error
            for event in stored:
                self.book.apply(event)
        for event in stored:
            log.info(event.kind.value, number=event.number, **_shown(event))
        for watcher in self._watchers:
            watcher(stored)

    def _now(self) -> datetime:
        """The time for what is only noted."""
        now, last = self.clock.now(), self.book.last_at
        return now if last is None else max(now, last)

    async def _redeem(self, token_id: str, secret: str, pem: bytes, peer: str) -> Issued:
        token = self.book.tokens.get(token_id)
        given = hashlib.sha256(secret.encode()).hexdigest()
        if token is None or not hmac.compare_digest(given, token.hash):
            raise IdentityFault("token-unknown")
        request = _read(pem, self.identity(token.connector))
        same = await self._same_again(token, request)
        if same is not None:
            return same
        try:
            return await self._issue(token.connector, request, Via.TOKEN, token)
        except IdentityFault as fault:
            if fault.fault.code == "token-used" and token.used_by != request.key_id:
                await self._note_misuse(token, request, peer)
            raise

    async def _same_again(self, token: TokenRecord, request: Request) -> Issued | None:
        """What the same token and key got already, as long as it is kept and still good."""
        if token.used_at is None or token.used_by != request.key_id or self._now() > token.used_at + SAME_ANSWER:
            return None
        return await self._stored(token.fingerprint, token.connector)

    async def _stored(self, fingerprint: str, key: ConnectorKey) -> Issued | None:
        if self.book.standing(fingerprint, key, self.clock.now()) is not Standing.GOOD:
            return None
        chain = await self.store.leaf(fingerprint)
        return None if chain is None else Issued(chain, self.book.certificates[fingerprint], *self.root_texts())

    async def _note_misuse(self, token: TokenRecord, request: Request, peer: str) -> None:
        log_limited(log, "error", f"misuse {token.token}", "ALARM: a used join token was shown with another key",
                    token_id=token.token, peer=peer, connector="/".join(token.connector))  # fmt: skip

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            if token.misuses:  # once is enough in a list that only grows
                return [], {}
            return [new_event(Kind.TOKEN_MISUSED, self._now(), token=token.token, key=request.key_id, peer=peer)], {}

        await self.change(decide)

    async def _renew(self, holder: Holder, pem: bytes) -> Issued:
        request = _read(pem, self.identity(holder.key))
        for record in self.book.connectors[holder.key].certificates if holder.key in self.book.connectors else ():
            if record.key == request.key_id:
                again = await self._stored(record.fingerprint, holder.key)
                if again is not None and record.fingerprint != holder.fingerprint:
                    return again
                raise IdentityFault("request-refused", "its key was used before: make a new one")
        return await self._issue(holder.key, request, Via.RENEWAL, holder)

    async def _issue(self, key: ConnectorKey, request: Request, via: Via, proof: TokenRecord | Holder) -> Issued:
        made: list[tuple[bytes, str]] = []

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            now = self.now()
            self._judge(key, request, proof, now)
            authority = self.authority()
            leaf = issue.issue_connector(
                authority, self.identity(key), request.public_key, now, self.lifetimes.leaf
            )  # fmt: skip
            chain = issue.certificate_pem(leaf, *authority.chain)
            issued = _issued_event(leaf, key, request.key_id, self.book.active, via, now)
            fingerprint = issued.text("fingerprint")
            made.append((chain, fingerprint))
            used = []
            if isinstance(proof, TokenRecord):
                used.append(new_event(
                    Kind.TOKEN_USED, now, token=proof.token, key=request.key_id, fingerprint=fingerprint
                ))  # fmt: skip
            reach("relay.certificate.decided")
            return [issued, *used], {fingerprint: chain}

        await self.change(decide)
        reach("relay.certificate.applied")
        chain, fingerprint = made[0]
        return Issued(chain, self.book.certificates[fingerprint], *self.root_texts())

    def _judge(self, key: ConnectorKey, request: Request, proof: TokenRecord | Holder, now: datetime) -> None:
        """Raise IdentityFault unless this connector may have a certificate now."""
        if isinstance(proof, TokenRecord):
            state = proof.state(now)
            if state is not TokenState.OPEN:
                raise IdentityFault(f"token-{state.value}")
        else:
            standing = self.book.standing(proof.fingerprint, key, now)
            if standing not in (Standing.GOOD, Standing.RENEW_ONLY):
                raise IdentityFault(standing.value)
        if self.book.is_blocked(key):
            raise IdentityFault("connector-blocked")
        if not self.knows(key[0], key[1]):
            raise IdentityFault("unknown-location")
        known = self.book.connectors.get(key)
        certificates = known.certificates if known is not None else []
        if any(record.key == request.key_id for record in certificates):
            raise IdentityFault("request-refused", "its key was used before: make a new one")
        if sum(now <= record.not_after and record.revoked_at is None for record in certificates) >= MAX_UNEXPIRED:
            raise IdentityFault("renewed-too-often")


def _read(pem: bytes, identity: ConnectorId) -> Request:
    try:
        request = read_request(pem)
    except ValueError as error:
        raise IdentityFault("request-refused", str(error)) from error
    if request.identity is not None and request.identity != identity:
        raise IdentityFault("request-refused", f"it asks for another identity than {identity}")
    return request


def _issued_event(
    leaf: x509.Certificate, key: ConnectorKey, key_id: str, generation: int, via: Via, now: datetime
) -> Event:
    tenant, location, connector = key
    return new_event(
        Kind.ISSUED, now, fingerprint=issue.fingerprint(leaf), serial=f"{leaf.serial_number:x}", generation=generation,
        tenant=tenant, location=location, connector=connector, key=key_id,
        not_before=leaf.not_valid_before_utc.timestamp(), not_after=leaf.not_valid_after_utc.timestamp(), via=via.value,
    )  # fmt: skip


def _has_issued(issuing: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuing)
    except Exception:  # noqa: BLE001  # whatever is wrong with it, it is not ours
        return False
    return True


def _shown(event: Event) -> dict[str, object]:
    """What the log says of an event: neither certificates nor hashes."""
    hidden = {"certificate", "hash", "key", "pins"}
    shown = {name: value for name, value in event.data.items() if name not in hidden and value not in (None, "")}
    return {"token_id" if name == "token" else name: value for name, value in shown.items()}


def _told_elsewhere(_name: str, _error: BaseException) -> None:
    """Whoever waits for the change gets what it raised."""


def _count_nothing(_via: str, _outcome: str) -> None:
    """Nobody wants to know."""
