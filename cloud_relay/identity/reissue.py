"""After the switch of a roll-over: connectors with a certificate of the old CA are asked to renew, not waited for until
half of its time is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from cloud_relay.identity.records import Stage
from shared.logs import get_logger

if TYPE_CHECKING:
    from cloud_relay.identity.book import Book
    from cloud_relay.identity.records import ConnectorKey

EVERY: Final = 900.0
"""Seconds between two rounds of hints: who was away, or did not follow one, is asked again."""

PER_SECOND: Final = 10.0
"""Renewals that may come in a second: each is a signature and an event on the disk."""

SOON: Final = 10.0
"""Seconds within which even few connectors renew."""

log = get_logger("relay.identity")


class Reissue:
    """`look` now and then. `attached` gives all sessions' connectors and the certificates that they showed; `hint` asks
    a connector to renew within so many seconds."""

    def __init__(
        self,
        book: Callable[[], Book],
        attached: Callable[[], Iterable[tuple[ConnectorKey, str]]],
        hint: Callable[[ConnectorKey, float], int],
        time: Callable[[], float],
    ) -> None:
        self._book = book
        self._attached = attached
        self._hint = hint
        self._time = time
        self._active = 0
        self._next = 0.0

    def __repr__(self) -> str:
        return f"<Reissue for generation {self._active or 'none'}>"

    def look(self) -> None:
        """Ask whom it concerns, once a round; a CA that was rolled back begins a new one."""
        book = self._book()
        if book.stage is not Stage.SWITCHED:
            self._active = 0
            return
        if book.active == self._active and self._time() < self._next:
            return
        self._active, self._next = book.active, self._time() + EVERY
        behind = {key for key, fingerprint in self._attached() if self._is_behind(book, fingerprint)}
        within = max(SOON, len(behind) / PER_SECOND)
        asked = sum(self._hint(key, within) for key in sorted(behind))
        if behind:
            log.info("connectors are asked for certificates of the new CA", connectors=asked, within=within)

    def _is_behind(self, book: Book, fingerprint: str) -> bool:
        record = book.certificates.get(fingerprint)
        return record is not None and record.generation != book.active
