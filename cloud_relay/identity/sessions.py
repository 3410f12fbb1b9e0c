"""Renewal inside tunnels: certificates for whoever asks, roots for whoever lacks them, hints when it is time.

A session that may only renew is never attached to the registry, and ends after RENEW_ONLY_TIME. One whose certificate
the book does not know yet (made between a backup and its restore) waits until it was taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509

from shared.errors import FAULTS, QanatError
from shared.logs import get_logger, log_limited
from shared.pki.trust import load_pems, pin_of
from shared.tasks import spawn

if TYPE_CHECKING:
    from cloud_relay.admit import Identity
    from cloud_relay.identity.book import Book
    from cloud_relay.identity.enrolment import Certified
    from cloud_relay.identity.records import ConnectorKey
    from shared.tunnel.link import Link

RENEW_ONLY_TIME: Final = 60.0
"""Seconds that a session may last which is there for the renewal only."""

NOTE_PAUSE: Final = 1.0
"""Seconds between two notes of what one connector trusts."""

log = get_logger("relay.identity")


class Renews(Protocol):
    """What sessions need of the registrar."""

    @property
    def book(self) -> Book: ...
    async def renew(self, holder: Identity, request: bytes) -> Certified: ...
    async def take_in(self, certificate: x509.Certificate, key: ConnectorKey) -> bool: ...
    async def note_trust(self, key: ConnectorKey, pins: Sequence[str]) -> None: ...
    def root_texts(self) -> tuple[list[str], list[str]]: ...


class RenewalDesk:
    """Serves the renewal frames of all links of one listener."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registrar: Renews) -> None:
        self.registrar = registrar
        self._loop = loop
        self._links: dict[Link, Identity] = {}
        self._strangers: dict[Link, bytes] = {}
        self._pins: dict[Link, frozenset[str]] = {}
        self._said = registrar.root_texts()
        self._noted: dict[ConnectorKey, Sequence[str]] = {}

    def __repr__(self) -> str:
        return f"<RenewalDesk {len(self._links)} links, {len(self._strangers)} to be taken in>"

    # --- links come and go

    def came(self, link: Link, identity: Identity, certificate: bytes) -> None:
        """A tunnel is open. `certificate` is the connector's, in DER."""
        self._links[link] = identity
        if identity.is_stranger:
            self._strangers[link] = certificate

    def left(self, link: Link) -> None:
        """It is over."""
        self._links.pop(link, None)
        self._strangers.pop(link, None)
        self._pins.pop(link, None)

    def may_attend(self, link: Link, identity: Identity, attend: Callable[[], None]) -> bool:
        """HELLOs are exchanged: whether it takes pushes now. `attend` is called if it does later."""
        if identity.is_renew_only:
            log.info("a session for the renewal only", connector=str(identity), peer=link.describe())
            self._loop.call_later(RENEW_ONLY_TIME, self._end_renew_only, link)
            return False
        if link in self._strangers:
            spawn(self._take_in(link, identity, self._strangers[link], attend), "take in")
            return False
        return True

    # --- what connectors say

    def renew(self, link: Link, identity: Identity, request: bytes) -> None:
        """A RENEW came: the CERTIFICATE follows, now or later."""
        spawn(self._renew(link, identity, request), "renewal")

    def note_trust(self, link: Link, identity: Identity, pins: Sequence[str]) -> None:
        """A TRUST came: what the connector trusts now."""
        known = frozenset(pins)
        if self._pins.get(link) == known:
            return
        self._pins[link] = known
        if known != frozenset(pin_of(one) for one in load_pems(self._said[0])):
            self._send_trust(link)
        key = identity.key
        is_noting = key in self._noted
        self._noted[key] = pins
        if not is_noting:
            spawn(self._note_trust(key), "trust")

    # --- what connectors are told

    def hint(self, link: Link, within: float) -> bool:
        """Ask its connector to renew within so many seconds; whether the link could carry it."""
        return link.is_open and link.send_hint(within)

    # --- within

    async def _renew(self, link: Link, identity: Identity, request: bytes) -> None:
        try:
            issued = await self.registrar.renew(identity, request)
        except QanatError as fault:
            code, detail = fault.fault.code, fault.detail
        except Exception as error:  # the disk is full, or a bug of ours: the connector asks again
            log.error("a certificate could not be renewed", connector=str(identity), exc_info=error)
            code, detail = "cannot-issue", ""
        else:
            link.answer_certificate({"certificate": issued.certificate.decode("ascii")})
            return
        log_limited(
            log, "warning", f"renewal {identity}", "renewal refused", connector=str(identity), code=code, detail=detail
        )
        link.answer_certificate({"error": code, "detail": detail or FAULTS[code].title})

    async def _note_trust(self, key: ConnectorKey) -> None:
        """Note what it said last, one thing at a time and with a pause: each may be an event on the disk."""
        noted: Sequence[str] | None = None
        try:
            while self._noted[key] != noted:
                noted = self._noted[key]
                await self.registrar.note_trust(key, noted)
                await asyncio.sleep(NOTE_PAUSE)
        except Exception as error:  # it says so again with its next tunnel
            log.error("what a connector trusts could not be noted", connector="/".join(key), exc_info=error)
        finally:
            del self._noted[key]

    async def _take_in(self, link: Link, identity: Identity, der: bytes, attend: Callable[[], None]) -> None:
        is_known = False
        try:
            is_known = await self.registrar.take_in(x509.load_der_x509_certificate(der), identity.key)
        except Exception as error:  # the connector dials again
            log.error("a certificate could not be taken in", connector=str(identity), exc_info=error)
        if not is_known:
            link.close("certificate-unknown")
        elif self._strangers.pop(link, None) is not None and link.is_open:
            attend()

    def _end_renew_only(self, link: Link) -> None:
        if link in self._links:
            link.close("going-away", "it may only renew here, and took too long")

    def retell(self) -> None:
        """The roots may have changed: whoever offered the renewal is told, if they have."""
        said = self.registrar.root_texts()
        has_changed = [set(texts) for texts in said] != [set(texts) for texts in self._said]
        self._said = said
        if has_changed:
            for link in list(self._links):
                self._send_trust(link)

    def _send_trust(self, link: Link) -> None:
        roots, cross = self._said
        link.send_trust({"roots": roots, "cross": cross})
