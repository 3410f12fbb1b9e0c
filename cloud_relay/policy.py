"""Who may open a tunnel where the CA is the operator's own: all with a certificate of it, save those on a list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from cloud_relay.config import RelayConfig
from cloud_relay.identity.book import Book
from cloud_relay.identity.records import ConnectorKey, Standing
from cloud_relay.identity_table import IdentityTable

if TYPE_CHECKING:
    from cryptography import x509

    from cloud_relay.admit import Identity


class ConfigPolicy:
    """Satisfies `admit.Policy`. `book` holds what was revoked and blocked, None for nothing.

    `cas` are the pins of the CA certificates in the files that the config names: those of `tunnel.tls.client_ca` under
    "", those of tenants that have files of their own under their names; such a tenant is bound to them, and they are
    nobody else's. None where no file was read: then the TLS listener's word counts.
    """

    __slots__ = ("_book", "_cas", "_config", "_table")

    def __init__(
        self, config: RelayConfig, book: Book | None = None, cas: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        self._config = config
        self._book = book
        self._cas = cas
        self._table = IdentityTable(config.tunnel.tls.identities if config.tunnel.tls is not None else ())

    @property
    def trust_domain(self) -> str:
        """The first part of every SPIFFE id that counts here."""
        return self._config.trust_domain

    def knows(self, tenant: str, location: str) -> bool:
        """Whether the config has them."""
        return self._config.knows(tenant, location)

    def connector_of(self, certificate: x509.Certificate) -> ConnectorKey | str | None:
        """Whose certificate it is by `tunnel.tls.identities`."""
        return self._table.find(certificate)

    def trusts(self, tenant: str, issuers: frozenset[str]) -> bool:
        """Whether one of the CAs is the tenant's, and none another's; one without files of its own has the relay's."""
        cas = self._cas
        if cas is None:
            return True
        own = cas.get(tenant, cas[""])
        foreign = (known - own for name, known in cas.items() if name not in ("", tenant))
        return not issuers.isdisjoint(own) and all(issuers.isdisjoint(known) for known in foreign)

    def standing(self, identity: Identity, now: datetime) -> Standing:
        """By the certificate's own dates, and by what was revoked or blocked."""
        book = self._book
        if book is not None:
            if book.was_revoked_since(identity.fingerprint, identity.key, identity.not_before):
                return Standing.REVOKED
            if book.is_blocked(identity.key):
                return Standing.BLOCKED
        if now < identity.not_before:
            return Standing.NOT_YET_VALID
        return Standing.EXPIRED if now > identity.not_after else Standing.GOOD

    def may_be_taken_in(self, identity: Identity, now: datetime) -> bool:
        """Never: no certificate is unknown here."""
        return False

    def __repr__(self) -> str:
        return f"<ConfigPolicy of {len(self._config.tenants)} tenants>"
