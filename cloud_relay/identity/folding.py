"""What each kind of event does to the book: one function a kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509

from cloud_relay.identity.events import Event, Kind, Scope, Step, Via
from cloud_relay.identity.records import CertificateRecord, Generation, Stage, TokenRecord

if TYPE_CHECKING:
    from cloud_relay.identity.book import Book


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
    certificate = _certificate(event.text("certificate"))
    book.generations[number] = book.generations[number]._replace(issuing=certificate)
    book.issuers.setdefault(number, []).append(certificate)


def _roll_over(book: Book, event: Event) -> None:
    step, number = Step(event.text("step")), event.whole("generation")
    if step is Step.ROLLED_BACK:
        was_switched = book.stage is Stage.SWITCHED
        leaving, staying = (book.active, number) if was_switched else (number, book.active)
        if leaving > staying:  # an older one's word for the newer is kept, and with it the older one's tokens
            _end_tokens(book, book.generations[leaving].pin, event.at)
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


def _end_tokens(book: Book, pin: str, at: datetime) -> None:
    """The generation with this pin will go: its tokens would lead nowhere."""
    for token in book.tokens.values():
        if token.pin == pin and token.used_at is None:
            token.revoked_at = token.revoked_at or at


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
    if record.via == Via.RESTORE and record.connector not in book.connectors:
        book.connector(record.connector).targets = frozenset()  # what its token allowed is not known any more
    book.certificates[record.fingerprint] = record
    book.issued[record.generation] += 1
    book.connector(record.connector).certificates.append(record)


def _revoked(book: Book, event: Event) -> None:
    scope = Scope(event.text("scope"))
    fingerprint = str(event.data.get("fingerprint") or "")
    key = (str(event.data.get("tenant") or ""), str(event.data.get("location") or ""),
           str(event.data.get("connector") or ""))  # fmt: skip
    if scope is Scope.CERTIFICATE:
        book.revoked_fingerprints[fingerprint] = event.at
    else:
        book.revocations[key] = max(event.at, book.revocations.get(key, event.at))
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


def _clock_accepted(_book: Book, _event: Event) -> None:
    """`apply` takes its time."""


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


APPLY: Final[dict[Kind, Callable[[Book, Event], None]]] = {
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
    Kind.CLOCK_ACCEPTED: _clock_accepted,
    Kind.RESTORED: _restored,
}
