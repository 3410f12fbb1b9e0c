"""What counts now: folded from the events, one by one, in their order. Pure: no I/O, no clock.

    root-created 1 ──▶ STEADY ──roll-over──▶ PUBLISHED ──▶ SWITCHED ──▶ STEADY
                          ▲   (new root, the   │             │  ▲  │
                          │   old one signs)   │rolled back  │  └──┘ rolled back: the two change places
                          └────────────────────┴─────────────┘ retired

Certificates are kept until they have been expired for as long as they could be renewed; tokens for a month.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from cloud_relay.identity.events import Event, Kind, Scope, Step, Via
from cloud_relay.identity.records import (
    CertificateRecord,
    ConnectorKey,
    ConnectorRecord,
    Generation,
    Stage,
    Standing,
    TokenRecord,
    Trust,
)

KEEP_TOKENS: Final = timedelta(days=30)
"""How long a token is remembered after its end, for `tokens list`."""


class Book:
    """The state of identity. Changed by `apply` alone."""

    def __init__(self, renewal_grace: timedelta = timedelta(days=30)) -> None:
        self.renewal_grace = renewal_grace
        self.number = 0
        self.trust_domain = ""
        self.relay = ""
        self.last_at: datetime | None = None
        self.certificates: dict[str, CertificateRecord] = {}
        self.connectors: dict[ConnectorKey, ConnectorRecord] = {}
        self.tokens: dict[str, TokenRecord] = {}
        self.generations: dict[int, Generation] = {}
        self.crosses: dict[tuple[int, int], x509.Certificate] = {}
        """(generation, generation that vouches for it): the cross certificate."""
        self.retired: dict[int, datetime] = {}
        """Generations that have been retired, and when: their certificates may still be renewed for a while."""
        self.active = 0
        self.other = 0
        """The generation that comes (PUBLISHED) or goes (SWITCHED), else 0."""
        self.stage = Stage.STEADY
        self.stage_since: datetime | None = None
        self.restores: list[tuple[datetime, datetime]] = []
        """(time of the backup, time of the restore): what was issued in between is not known, but ours."""
        self.revocations: dict[ConnectorKey, datetime] = {}
        """Scopes and when: a certificate of a CA that is not ours counts if it was made later. Parts may be empty."""
        self.revoked_fingerprints: dict[str, datetime] = {}

    def __repr__(self) -> str:
        return (
            f"<Book {self.number} events, {len(self.certificates)} certificates of {len(self.connectors)} connectors, "
            f"{len(self.tokens)} tokens, generation {self.active}, {self.stage}>"
        )

    # --- what is asked

    @property
    def is_initialised(self) -> bool:
        """Whether there is a CA."""
        return self.active > 0

    @property
    def generation(self) -> Generation:
        """The one that signs. LookupError where there is no CA."""
        return self.generations[self.active]

    def standing(self, fingerprint: str, key: ConnectorKey, now: datetime) -> Standing:
        """What this certificate of this connector may do. The book's word alone counts, not the certificate's."""
        record = self.certificates.get(fingerprint)
        if record is None or record.connector != key:
            return Standing.REVOKED if fingerprint in self.revoked_fingerprints else Standing.UNKNOWN
        if record.revoked_at is not None:
            return Standing.REVOKED
        connector = self.connectors[key]
        if connector.blocked_at is not None:
            return Standing.BLOCKED
        if now < record.not_before:
            return Standing.NOT_YET_VALID
        if now > record.not_after + self.renewal_grace:
            return Standing.EXPIRED
        if now > record.not_after or record.generation not in (self.active, self.other):
            return Standing.RENEW_ONLY
        return Standing.GOOD

    def is_blocked(self, key: ConnectorKey) -> bool:
        """Whether this connector is barred."""
        connector = self.connectors.get(key)
        return connector is not None and connector.blocked_at is not None

    def was_revoked_since(self, fingerprint: str, key: ConnectorKey, not_before: datetime) -> bool:
        """For certificates of another CA: whether a revocation came after this one was made."""
        if fingerprint in self.revoked_fingerprints:
            return True
        scopes = (key, (key[0], key[1], ""), (key[0], "", ""))
        return any(not_before <= self.revocations[scope] for scope in scopes if scope in self.revocations)

    def may_be_taken_in(self, not_before: datetime, backdated: timedelta) -> bool:
        """Whether an unknown certificate of ours was made between a backup and its restore."""
        made = not_before + backdated
        return any(start <= made <= end for start, end in self.restores)

    def allowed_targets(self, key: ConnectorKey) -> frozenset[str] | None:
        """What it may announce; None for anything."""
        connector = self.connectors.get(key)
        return connector.targets if connector is not None else None

    def living(self, now: datetime) -> list[ConnectorRecord]:
        """Connectors with a certificate that is neither expired nor revoked, and that are not blocked."""
        return [
            one for one in self.connectors.values()
            if one.blocked_at is None and newest(one, now) is not None
        ]  # fmt: skip

    def waits_for(self, now: datetime) -> list[ConnectorRecord]:
        """The living connectors for which the next step of the roll-over waits."""
        living = [one for one in self.living(now) if not one.is_skipped]
        if self.stage is Stage.PUBLISHED:
            pin = self.generations[self.other].pin
            return [one for one in living if pin not in one.pins]
        if self.stage is Stage.SWITCHED:
            return [one for one in living if _newest_generation(one, now) != self.active]
        return []

    def trust(self, now: datetime) -> Trust:
        """What connectors should trust, with the chain of cross certificates, and what verifies them."""
        current = [self.generations[number] for number in (self.other, self.active) if number]
        renewable = [
            self.generations[number] for number, at in self.retired.items()
            if now <= at + self.renewal_grace and number in self.generations
        ]  # fmt: skip
        return Trust(
            tuple(one.root for one in current),
            tuple(self.crosses.values()),
            tuple(one.root for one in [*current, *renewable]),
        )

    def served_chain(self) -> list[x509.Certificate]:
        """What the relay sends with its own certificate: the issuing CA, then the words of other roots for its root.

        Whoever trusts only a root of long ago, or of before a roll-back, finds the way by them.
        """
        issuing = self.generation.issuing
        chain = [] if issuing is None else [issuing]
        seen, ends = {self.active}, [self.active]
        while ends:
            end = ends.pop(0)
            for (number, by), cross in self.crosses.items():
                if number == end and by not in seen:
                    seen.add(by)
                    ends.append(by)
                    chain.append(cross)
        return chain

    # --- what happened

    def apply(self, event: Event) -> None:
        """Take in the next event. ValueError if it is not the next."""
        if event.number != self.number + 1:
            msg = f"event {event.number} after {self.number}: the list has a gap"
            raise ValueError(msg)
        _APPLY[event.kind](self, event)
        self.number = event.number
        self.last_at = event.at

    def forget(self, now: datetime) -> None:
        """Drop what can no longer count: it stays in the list of events."""
        for record in [r for r in self.certificates.values() if now > r.not_after + self.renewal_grace]:
            del self.certificates[record.fingerprint]
            self.connectors[record.connector].certificates.remove(record)
        for token in [t for t in self.tokens.values() if now > t.expires + KEEP_TOKENS]:
            del self.tokens[token.token]

    # --- within

    def connector(self, key: ConnectorKey) -> ConnectorRecord:
        """The record of a connector, made when it is first heard of."""
        return self.connectors.setdefault(key, ConnectorRecord(key))

    def in_scope(self, scope: Scope, fingerprint: str, key: ConnectorKey) -> Iterable[CertificateRecord]:
        """The known certificates that a revocation ends."""
        if scope is Scope.CERTIFICATE:
            record = self.certificates.get(fingerprint)
            return [] if record is None else [record]
        wanted = key[: {Scope.TENANT: 1, Scope.LOCATION: 2, Scope.CONNECTOR: 3}[scope]]
        return [one for one in self.certificates.values() if one.connector[: len(wanted)] == wanted]


def newest(connector: ConnectorRecord, now: datetime) -> CertificateRecord | None:
    """Its newest certificate that is neither expired nor revoked."""
    good = [one for one in connector.certificates if one.revoked_at is None and now <= one.not_after]
    return good[-1] if good else None


def _newest_generation(connector: ConnectorRecord, now: datetime) -> int:
    record = newest(connector, now)
    return record.generation if record is not None else 0


# ---------------------------------------------------------------- one function a kind


def _initialised(book: Book, event: Event) -> None:
    book.trust_domain, book.relay = event.text("trust_domain"), event.text("relay")


def _root_created(book: Book, event: Event) -> None:
    number = event.whole("generation")
    book.generations[number] = Generation(number, _certificate(event.text("certificate")), None)
    if not book.active:
        book.active = number


def _cross_signed(book: Book, event: Event) -> None:
    book.crosses[event.whole("generation"), event.whole("by")] = _certificate(event.text("certificate"))


def _issuing_created(book: Book, event: Event) -> None:
    number = event.whole("generation")
    book.generations[number] = book.generations[number]._replace(issuing=_certificate(event.text("certificate")))


def _roll_over(book: Book, event: Event) -> None:
    step, number = Step(event.text("step")), event.whole("generation")
    if step is Step.PUBLISHED:
        book.other, book.stage = number, Stage.PUBLISHED
    elif step is Step.SWITCHED or (step is Step.ROLLED_BACK and book.stage is Stage.SWITCHED):
        book.active, book.other = number, book.active
        book.stage = Stage.SWITCHED
    elif step is Step.COMPROMISED:
        _distrust(book, event.at)
        book.active, book.other, book.stage = number, 0, Stage.STEADY
    else:  # retired, or rolled back before anything was switched
        book.retired[number] = event.at
        book.crosses = {pair: cross for pair, cross in book.crosses.items() if _still_leads(pair, number, book.active)}
        book.other, book.stage = 0, Stage.STEADY
    if book.stage is Stage.STEADY:
        for connector in book.connectors.values():
            connector.is_skipped = False
    book.stage_since = event.at


def _still_leads(pair: tuple[int, int], gone: int, active: int) -> bool:
    """Whether a cross certificate is of use after a generation went: whoever trusts only an older root needs its word
    for the next one for ever; the way back from newer to older, and all about one that was rolled back, is not."""
    number, by = pair
    return gone not in pair or (gone < active and by < number)


def _distrust(book: Book, at: datetime) -> None:
    """The keys are in other hands: nothing that they have signed counts, and nothing that they vouch for."""
    for record in book.certificates.values():
        record.revoked_at = record.revoked_at or at
        record.reason = record.reason or "the CA was compromised"
    for token in book.tokens.values():
        token.revoked_at = token.revoked_at or at
    newest_number = max(book.generations)
    book.generations = {newest_number: book.generations[newest_number]}
    book.crosses.clear()
    book.retired.clear()
    book.restores.clear()


def _root_trusted(book: Book, event: Event) -> None:
    book.connector(event.connector).pins = frozenset(event.texts("pins") or ())


def _skipped(book: Book, event: Event) -> None:
    book.connector(event.connector).is_skipped = True


def _token_created(book: Book, event: Event) -> None:
    targets = event.texts("targets")
    book.tokens[event.text("token")] = TokenRecord(
        event.text("token"), event.text("hash"), event.connector, event.at, event.seconds("expires"),
        None if targets is None else frozenset(targets), event.text("pin"),
    )  # fmt: skip


def _token_revoked(book: Book, event: Event) -> None:
    token = book.tokens.get(event.text("token"))
    if token is not None:
        token.revoked_at = event.at


def _token_used(book: Book, event: Event) -> None:
    token = book.tokens[event.text("token")]
    token.used_at, token.used_by, token.fingerprint = event.at, event.text("key"), event.text("fingerprint")
    connector = book.connector(token.connector)
    connector.targets = token.targets
    connector.pins = frozenset({token.pin})


def _token_misused(book: Book, event: Event) -> None:
    token = book.tokens.get(event.text("token"))
    if token is not None:
        token.misuses += 1


def _issued(book: Book, event: Event) -> None:
    record = CertificateRecord(
        event.text("fingerprint"), event.text("serial"), event.whole("generation"), event.connector, event.text("key"),
        event.seconds("not_before"), event.seconds("not_after"), Via(event.text("via")),
    )  # fmt: skip
    book.certificates[record.fingerprint] = record
    book.connector(record.connector).certificates.append(record)


def _revoked(book: Book, event: Event) -> None:
    scope = Scope(event.text("scope"))
    fingerprint = str(event.data.get("fingerprint") or "")
    key = (str(event.data.get("tenant") or ""), str(event.data.get("location") or ""),
           str(event.data.get("connector") or ""))  # fmt: skip
    if scope is Scope.CERTIFICATE:
        book.revoked_fingerprints[fingerprint] = event.at
    else:
        book.revocations[key] = event.at
    for record in book.in_scope(scope, fingerprint, key):
        if record.revoked_at is None:
            record.revoked_at, record.reason = event.at, str(event.data.get("reason") or "")


def _blocked(book: Book, event: Event) -> None:
    connector = book.connector(event.connector)
    connector.blocked_at, connector.reason = event.at, str(event.data.get("reason") or "")


def _unblocked(book: Book, event: Event) -> None:
    connector = book.connector(event.connector)
    connector.blocked_at, connector.reason = None, ""


def _restored(book: Book, event: Event) -> None:
    book.restores.append((event.seconds("backup_at"), event.at))
    for token in book.tokens.values():
        if token.used_at is None:
            token.revoked_at = token.revoked_at or event.at


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


_APPLY: Final[dict[Kind, Callable[[Book, Event], None]]] = {
    Kind.INITIALISED: _initialised,
    Kind.ROOT_CREATED: _root_created,
    Kind.CROSS_SIGNED: _cross_signed,
    Kind.ISSUING_CREATED: _issuing_created,
    Kind.ROLL_OVER: _roll_over,
    Kind.ROOT_TRUSTED: _root_trusted,
    Kind.SKIPPED: _skipped,
    Kind.TOKEN_CREATED: _token_created,
    Kind.TOKEN_REVOKED: _token_revoked,
    Kind.TOKEN_USED: _token_used,
    Kind.TOKEN_MISUSED: _token_misused,
    Kind.ISSUED: _issued,
    Kind.REVOKED: _revoked,
    Kind.BLOCKED: _blocked,
    Kind.UNBLOCKED: _unblocked,
    Kind.RESTORED: _restored,
}
