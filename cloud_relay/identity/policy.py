"""Who may open a tunnel where the relay is its own CA: those whose certificates stand in the book, and nobody else."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cloud_relay.identity.book import Book
from cloud_relay.identity.records import ConnectorKey, Standing
from shared.pki.issue import BACKDATED

if TYPE_CHECKING:
    from cryptography import x509

    from cloud_relay.admit import Identity
    from cloud_relay.config import RelayConfig


class BookPolicy:
    """Satisfies `admit.Policy`. The book changes under it; the config does not."""

    __slots__ = ("_book", "_config")

    def __init__(self, config: RelayConfig, book: Book) -> None:
        self._config = config
        self._book = book

    @property
    def trust_domain(self) -> str:
        """The first part of every SPIFFE id that counts here."""
        return self._config.trust_domain

    def knows(self, tenant: str, location: str) -> bool:
        """Whether the config has them."""
        return self._config.knows(tenant, location)

    def connector_of(self, certificate: x509.Certificate) -> ConnectorKey | None:
        """Nobody's: our certificates hold a SPIFFE id, or are none of ours."""
        return None

    def trusts(self, tenant: str, issuers: frozenset[str]) -> bool:
        """One CA serves all tenants; which of its certificates is whose stands in the book."""
        return True

    def standing(self, identity: Identity, now: datetime) -> Standing:
        """The book's word, be the certificate ever so good."""
        standing = self._book.standing(identity.fingerprint, identity.key, now)
        if standing is Standing.UNKNOWN and now > identity.not_after + self._book.renewal_grace:
            return Standing.EXPIRED  # the book has forgotten it; that is what its owner should hear
        return standing

    def may_be_taken_in(self, identity: Identity, now: datetime) -> bool:
        """Whether it was made between a backup and its restore, and nothing speaks against it."""
        book = self._book
        made = identity.not_before + BACKDATED
        return (
            now <= identity.not_after
            and book.may_be_taken_in(identity.not_before, BACKDATED)
            and not book.is_blocked(identity.key)
            and not book.was_revoked_since(identity.fingerprint, identity.key, made)
            and identity.fingerprint not in book.certificates
        )

    def __repr__(self) -> str:
        return f"<BookPolicy of {self._book!r}>"
