"""What counts now: folded from the events, one by one, in their order. Pure: no I/O, no clock.

    root-created 1 ──▶ STEADY ──roll-over──▶ PUBLISHED ──▶ SWITCHED ──▶ STEADY
                          ▲   (new root, the   │             │  ▲  │
                          │   old one signs)   │rolled back  │  └──┘ rolled back: the two change places
                          └────────────────────┴─────────────┘ retired

Certificates are kept until they have been expired for as long as they could be renewed; tokens for a month.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from cloud_relay.identity.events import Event, Kind, Scope
from cloud_relay.identity.folding import APPLY
from cloud_relay.identity.records import (
    CertificateRecord,
    ConnectorKey,
    ConnectorRecord,
    Generation,
    Stage,
    Standing,
    TokenRecord,
    TokenState,
    Trust,
)

MAX_CROSSES: Final = 12
"""Cross certificates that are told and served: two of each roll-over that somebody may have slept through."""

KEEP_CROSSES: Final = timedelta(days=180)
"""How long after its end a root's word for the next one is told: longer than anything can be renewed that somebody has
who trusts only the old one."""

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
        self.issuers: dict[int, list[x509.Certificate]] = {}
        """All issuing CAs that a generation has had, the newest last."""
        self.issued: Counter[int] = Counter()
        """Certificates that are known, by generation: as long as there is one, somebody may still trust that root."""
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
        if now < record.not_before:  # issued when the relay's clock was ahead: a new one is due
            return Standing.RENEW_ONLY
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
        renewable = [self.generations[number] for number in self.retired if self._counts(number)]
        return Trust(
            tuple(one.root for one in current),
            tuple(self._useful_crosses(now).values()),
            tuple(one.root for one in [*current, *renewable]),
        )

    def join_roots(self, now: datetime) -> list[x509.Certificate]:
        """The roots that somebody who joins may have the pin of: the current ones, and those of open tokens."""
        pins = {one.pin for one in self.tokens.values() if one.state(now) is TokenState.OPEN}
        current = {self.active, self.other}
        return [one.root for one in self.generations.values() if one.number in current or one.pin in pins]

    def served_chain(self, now: datetime) -> list[x509.Certificate]:
        """What the relay sends with its own certificate: the issuing CA, then the words of other roots for its root.

        Whoever trusts only a root of long ago, or of before a roll-back, finds the way by them.
        """
        issuing = self.generation.issuing
        chain = [] if issuing is None else [issuing]
        seen, ends = {self.active}, [self.active]
        crosses = self._useful_crosses(now)
        while ends:
            end = ends.pop(0)
            for (number, by), cross in crosses.items():
                if number == end and by not in seen:
                    seen.add(by)
                    ends.append(by)
                    chain.append(cross)
        return chain

    def _useful_crosses(self, now: datetime) -> dict[tuple[int, int], x509.Certificate]:
        """The cross certificates that lead somebody on, from the oldest root that anybody of use may still trust."""
        pins = {one.pin for one in self.tokens.values() if one.state(now) is TokenState.OPEN}
        oldest = min((
            number for number, one in self.generations.items()
            if self._counts(number) or one.pin in pins or now <= self.retired.get(number, now) + KEEP_CROSSES
        ), default=self.active)  # fmt: skip
        pairs = [pair for pair in self.crosses if min(pair) >= oldest]
        return {pair: self.crosses[pair] for pair in sorted(pairs, key=max)[-MAX_CROSSES:]}

    def _counts(self, number: int) -> bool:
        """Whether certificates of this generation are good for something, if only for a renewal."""
        return number in (self.active, self.other) or self.issued[number] > 0

    # --- what happened

    def apply(self, event: Event) -> None:
        """Take in the next event. ValueError if it is not the next."""
        if event.number != self.number + 1:
            msg = f"event {event.number} after {self.number}: the list has a gap"
            raise ValueError(msg)
        APPLY[event.kind](self, event)
        self.number = event.number
        # Never back, whatever the clock said: what this is compared with must not be moved by the clock itself.
        if self.last_at is None or event.at > self.last_at or event.kind is Kind.CLOCK_ACCEPTED:
            self.last_at = event.at

    def forget(self, now: datetime) -> None:
        """Drop what can no longer count: it stays in the list of events."""
        for record in [r for r in self.certificates.values() if now > r.not_after + self.renewal_grace]:
            del self.certificates[record.fingerprint]
            self.issued[record.generation] -= 1
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
