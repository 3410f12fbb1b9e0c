"""Decides who gets a certificate: tokens are redeemed and certificates renewed here, and nowhere else.

What was answered is on the disk, and what could not be written has not happened: see `ledger`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event, Kind, Via, new_event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.ledger import IdentityFault, Ledger
from cloud_relay.identity.records import CertificateRecord, ConnectorKey, Standing, TokenRecord, TokenState
from cloud_relay.identity.store import KEEP_LEAVES, EventStore
from shared.clock import TrustedClock
from shared.crash_points import reach
from shared.logs import get_logger, log_limited
from shared.pki import issue
from shared.pki.files import PkiError
from shared.pki.issue import Authority
from shared.pki.requests import Request, key_id, read_request
from shared.pki.spiffe import ConnectorId, connector_id
from shared.pki.trust import pem_text

MAX_UNEXPIRED: Final = 32
"""Certificates of one connector that have not expired: it needs two, and a crash now and then makes another."""

MIN_LIFE: Final = timedelta(seconds=1)
"""What is left of the issuing CA's time, at least, for a certificate of it to be of any use."""

SAME_ANSWER: Final = timedelta(seconds=KEEP_LEAVES)

log = get_logger("relay.identity")


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
    """How long what the CA issues is valid."""

    leaf: timedelta = issue.LEAF_LIFETIME
    issuing: timedelta = issue.ISSUING_LIFETIME
    root: timedelta = issue.ROOT_LIFETIME


class Registrar(Ledger):
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
        super().__init__(book, store, clock)
        self.keys = keys
        self.lifetimes = lifetimes
        self.knows = knows
        self.count: Callable[[str, str], None] = _count_nothing
        """Told of each outcome: "token" or "renewal", and "ok" or a code of the catalogue."""
        self._noted: dict[ConnectorKey, list[str]] = {}
        self._authority: Authority | None = None

    def __repr__(self) -> str:
        return f"<Registrar of {self.book!r}>"

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

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            generation = self._taken_in_by(certificate, key)
            if generation is None:
                return [], {}
            public_key = certificate.public_key()
            if not isinstance(public_key, ec.EllipticCurvePublicKey):
                return [], {}
            return [_issued_event(certificate, key, key_id(public_key), generation, Via.RESTORE, self.note_time())], {}

        await self.change(decide)
        record = self.book.certificates.get(fingerprint)
        return record is not None and record.connector == key and record.revoked_at is None

    def _taken_in_by(self, certificate: x509.Certificate, key: ConnectorKey) -> int | None:
        """The generation that has issued a certificate which is to be taken in, if it is."""
        book, made = self.book, certificate.not_valid_before_utc + issue.BACKDATED
        fingerprint = issue.fingerprint(certificate)
        if fingerprint in book.certificates or book.is_blocked(key):
            return None
        if book.was_revoked_since(fingerprint, key, made):
            return None
        if not book.may_be_taken_in(certificate.not_valid_before_utc, issue.BACKDATED):
            return None
        current = (number for number in (book.active, book.other) if number)
        return next((n for n in current if any(_has_issued(ca, certificate) for ca in book.issuers[n])), None)

    async def note_trust(self, key: ConnectorKey, pins: Sequence[str]) -> None:
        """A connector said which of our roots it trusts. What it once said stays: so it can make no more events than
        there are roots. What comes in while another is being stored is stored together."""
        if self._missing(key, pins):
            self._noted[key] = list(pins)
            await self.change(self._note_all)

    def _note_all(self) -> tuple[list[Event], dict[str, bytes]]:
        # What is stored is missing no more, so it goes with the next note: a decision may have to be made twice.
        self._noted = noted = {key: pins for key, pins in self._noted.items() if self._missing(key, pins)}
        now = self.note_time()
        return [
            new_event(
                Kind.ROOT_TRUSTED, now, tenant=key[0], location=key[1], connector=key[2],
                pins=sorted(self.book.connectors[key].pins | self._missing(key, pins)),
            )
            for key, pins in noted.items()
        ], {}  # fmt: skip

    def _missing(self, key: ConnectorKey, pins: Sequence[str]) -> set[str]:
        """What is not known yet of what a connector says: of our current roots, and of a connector of ours."""
        connector, book = self.book.connectors.get(key), self.book
        if connector is None:
            return set()
        current = {book.generations[number].pin for number in (book.active, book.other) if number}
        return (current & set(pins)) - connector.pins

    def root_texts(self) -> tuple[list[str], list[str]]:
        """(roots, cross certificates) as PEM, as connectors are told them."""
        trust = self.book.trust(self.clock.now())
        return [pem_text(one) for one in trust.roots], [pem_text(one) for one in trust.cross]

    def join_texts(self) -> tuple[list[str], list[str]]:
        """The same for who wants to join: also the roots that open tokens pin."""
        roots = self.book.join_roots(self.clock.now())
        return [pem_text(one) for one in roots], self.root_texts()[1]

    # --- what signs

    def authority(self) -> Authority:
        """The issuing CA that signs now. IdentityFault (cannot-issue) if its key cannot be had."""
        generation = self.book.generation
        if generation.issuing is None or generation.issuing.not_valid_after_utc <= self.clock.now() + MIN_LIFE:
            path = self.keys.root_path(generation.root).name
            log_limited(log, "error", "issuing ended", "the issuing CA has ended: nothing is issued",
                        remedy=f"put the root's key back as ca/{path}, or roll the CA over")  # fmt: skip
            raise IdentityFault("cannot-issue", "the issuing CA has ended")
        known = self._authority
        if known is None or known.certificate != generation.issuing:
            try:
                known = self._authority = self.keys.issuing(generation)
            except PkiError as error:
                log_limited(log, "error", "issuing key", "the issuing CA cannot sign", error=str(error))
                raise IdentityFault("cannot-issue", "the key of the issuing CA cannot be used") from error
        return known

    def identity(self, key: ConnectorKey) -> ConnectorId:
        """The SPIFFE id of a connector of ours."""
        return connector_id(self.book.trust_domain, *key)

    # --- within

    async def _redeem(self, token_id: str, secret: str, pem: bytes, peer: str) -> Issued:
        if token_id not in self.book.tokens and self.is_shared:
            await self.follow()  # another process may have made it just now
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
        if token.used_at is None or token.used_by != request.key_id or self.note_time() > token.used_at + SAME_ANSWER:
            return None
        return await self._stored(token.fingerprint, token.connector)

    async def _stored(self, fingerprint: str, key: ConnectorKey) -> Issued | None:
        if self.book.standing(fingerprint, key, self.clock.now()) is not Standing.GOOD:
            return None
        chain = await self.store.leaf(fingerprint, self.clock.now())
        return None if chain is None else Issued(chain, self.book.certificates[fingerprint], *self.root_texts())

    async def _note_misuse(self, token: TokenRecord, request: Request, peer: str) -> None:
        log_limited(log, "error", f"misuse {token.token}", "ALARM: a used join token was shown with another key",
                    token_id=token.token, peer=peer, connector="/".join(token.connector))  # fmt: skip

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            if token.misuses:  # once is enough in a list that only grows
                return [], {}
            return [
                new_event(Kind.TOKEN_MISUSED, self.note_time(), token=token.token, key=request.key_id, peer=peer)
            ], {}

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
        chain, fingerprint = made[-1]  # of several, the one that was stored
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
        if _has_too_many(certificates, now):
            raise IdentityFault("renewed-too-often")


def _read(pem: bytes, identity: ConnectorId) -> Request:
    try:
        request = read_request(pem)
    except ValueError as error:
        raise IdentityFault("request-refused", str(error)) from error
    if request.identity is not None and request.identity != identity:
        raise IdentityFault("request-refused", f"it asks for another identity than {identity}")
    return request


def _has_too_many(certificates: Sequence[CertificateRecord], now: datetime) -> bool:
    """Whether a connector has more than it can need; one whose newest is past its half may always renew."""
    good = [record for record in certificates if now <= record.not_after and record.revoked_at is None]
    if len(good) < MAX_UNEXPIRED:
        return False
    start = good[-1].not_before + issue.BACKDATED
    return now < start + (good[-1].not_after - start) / 2


def _issued_event(
    leaf: x509.Certificate, key: ConnectorKey, public_key: str, generation: int, via: Via, now: datetime
) -> Event:
    tenant, location, connector = key
    return new_event(
        Kind.ISSUED, now, fingerprint=issue.fingerprint(leaf), serial=f"{leaf.serial_number:x}", generation=generation,
        tenant=tenant, location=location, connector=connector, key=public_key,
        not_before=leaf.not_valid_before_utc.timestamp(), not_after=leaf.not_valid_after_utc.timestamp(), via=via.value,
    )  # fmt: skip


def _has_issued(issuing: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuing)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # whatever is wrong, it is not ours
        return False
    return True


def _count_nothing(_via: str, _outcome: str) -> None:
    """Nobody wants to know."""
