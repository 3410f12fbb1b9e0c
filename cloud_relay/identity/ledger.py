"""How the state of identity changes: decide by the book, append to the list, apply to the book, under one lock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event
from cloud_relay.identity.store import Conflict, EventStore, StateError
from shared.clock import TrustedClock
from shared.errors import LocalFault
from shared.logs import get_logger, log_limited
from shared.tasks import spawn

BACKWARDS: Final = timedelta(minutes=5)
"""How much earlier than the last event it may be now. More means that this host's clock is wrong."""

MAX_CONFLICTS: Final = 50
"""Tries to store what is decided, while other processes store something."""

CONFLICT_PAUSE: Final = 0.02
"""Seconds at most before the second try, twice as many before the third …: they must not all come at once again."""

LONGEST_PAUSE: Final = 0.2

Decision = Callable[[], tuple[list[Event], dict[str, bytes]]]
"""What to store, by the book as it is now. Called anew, perhaps several times, where other processes write too."""

Watcher = Callable[[Sequence[Event]], None]

log = get_logger("relay.identity")


class IdentityFault(LocalFault):
    """A certificate is refused, by a code of the catalogue; the detail may be told to who asked."""


class Ledger:
    """The book, the list that it is folded from, and the one way to change both."""

    def __init__(self, book: Book, store: EventStore, clock: TrustedClock) -> None:
        self.book = book
        self.store = store
        self.clock = clock
        self._lock = asyncio.Lock()
        self._queue = asyncio.Lock()
        self._watchers: list[Watcher] = []
        self._is_retired = False
        self.is_shared = False
        """Whether other processes of this relay write too: what they have stored meanwhile is taken in, and decided
        anew."""
        self.on_stored: Callable[[int], None] = _nobody
        """Told the number of the last event that this process has stored."""

    def on_change(self, watcher: Watcher) -> None:
        """Call `watcher` with what was stored, after it was applied to the book."""
        self._watchers.append(watcher)

    async def commit(self, new: Sequence[Event], leaves: dict[str, bytes] | None = None) -> None:
        """Store and apply events that hang on nothing that could change meanwhile."""
        await self.change(lambda: (list(new), leaves or {}))

    async def change(self, decide: Decision, *, is_urgent: bool = False) -> None:
        """Decide under the lock, store, apply. What `decide` raises changes nothing. Cancelled: all or nothing.

        What an operator decides is urgent: it waits for one thing at most, however many connectors ask.
        """
        if is_urgent:
            await self._shielded(decide)
            return
        async with self._queue:
            await self._shielded(decide)

    async def _shielded(self, decide: Decision) -> None:
        await asyncio.shield(spawn(self._change(decide), "identity state", _told_elsewhere))

    def now(self) -> datetime:
        """The time for what is issued. IdentityFault (cannot-issue) when this host's clock must be wrong."""
        now = self.clock.now()
        last = self.book.last_at
        if last is not None and now < last - BACKWARDS:
            log_limited(log, "error", "clock", "this host's clock is wrong, or was: nothing is issued",
                        now=f"{now:%FT%TZ}", last_event=f"{last:%FT%TZ}",
                        remedy="set the clock; if it is right now: 'cloud-relay ca accept-clock'")  # fmt: skip
            raise IdentityFault("cannot-issue", f"the relay's clock says {now:%FT%TZ}, before its last event")
        return now

    async def _change(self, decide: Decision) -> None:
        async with self._lock:
            if self._is_retired:
                raise IdentityFault("cannot-issue", "this process of the relay ends, and the next one has taken over")
            stored = await self._store(decide)
            for event in stored:
                self.book.apply(event)
        if not stored:
            return
        self.on_stored(stored[-1].number)
        for event in stored:
            log.info(event.kind.value, number=event.number, **_shown(event))
        self._tell(stored)

    async def _store(self, decide: Decision) -> list[Event]:
        for number in range(MAX_CONFLICTS):
            new, leaves = decide()
            if not new:
                return []
            try:
                return await self.store.append(self.book.number, new, leaves)
            except Conflict as error:
                if not self.is_shared:
                    msg = "the state has changed under this relay: restart it, to read it anew"
                    raise StateError(msg) from error
            await asyncio.sleep(random.uniform(0.0, min(LONGEST_PAUSE, CONFLICT_PAUSE * 2**number)))
            await self._take_in()
        raise StateError("the state could not be written, since other workers of this relay write all the time")

    # --- one process after the other

    async def suspend(self) -> None:
        """Let the change under way end; later ones wait for `retire` or `resume`. Cancelled, nothing is suspended."""
        await self._lock.acquire()

    def retire(self) -> None:
        """Another process is the writer from now on: what waits, and what comes, is refused."""
        self._is_retired = True
        self._lock.release()

    async def follow(self) -> None:
        """Take in what another process has stored. Only while suspended, retired, or shared. Raises StateError."""
        if self.is_shared:
            async with self._lock:
                await self._take_in()
        else:
            await self._take_in()

    async def _take_in(self) -> None:
        stored = await self.store.read(self.book.number)
        for event in stored:
            self.book.apply(event)
        if stored:
            self._tell(stored)

    async def resume(self) -> None:
        """This process is the writer again; it must hold the state's lock. Raises StateError, and then it is not."""
        if self._is_retired:
            await self._lock.acquire()
            self._is_retired = False
        await self.follow()
        self._lock.release()

    def _tell(self, stored: Sequence[Event]) -> None:
        for watcher in self._watchers:
            try:
                watcher(stored)
            except Exception as error:  # it is stored, whatever becomes of it elsewhere
                log.error("a change of the identity state was not followed up", exc_info=error)

    def note_time(self) -> datetime:
        """The time for what is only noted, and for what closes doors: never before what was noted last."""
        now, last = self.clock.now(), self.book.last_at
        return now if last is None else max(now, last)


def _shown(event: Event) -> dict[str, object]:
    """What the log says of an event: neither certificates nor hashes."""
    hidden = {"certificate", "hash", "key", "pins"}
    shown = {name: value for name, value in event.data.items() if name not in hidden and value not in (None, "")}
    return {"token_id" if name == "token" else name: value for name, value in shown.items()}


def _nobody(_number: int) -> None:
    """No other process waits for it."""


def _told_elsewhere(_name: str, _error: BaseException) -> None:
    """Whoever waits for the change gets what it raised."""
