"""Which sessions are attached, and which of them takes a push. No I/O, no clock.

Every count is the size of a set of live sessions; nothing is added and subtracted on the side, so nothing can go wrong
for good.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.session import Key, Session, keys_of

if TYPE_CHECKING:
    import asyncio

MAX_IN_A_ROW: Final = 32
"""Pushes that follow each other into one tunnel within a turn of the loop: a message or two of small ones."""


RANKS: Final = (0, 1, 2, 3)
"""In which order sessions are chosen: see `Registry.choose`."""


class Watcher(Protocol):
    """Who is told what sessions expose; targets as `exposed_as` writes them."""

    def exposed(self, session: Session, keys: Sequence[Key]) -> None: ...
    def hidden(self, session: Session, keys: Sequence[Key]) -> None: ...


class Schedules(Protocol):
    """What the registry needs of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...


class Waiter:
    """Someone who waits for a session. `cancel` may be called at any time, also after the callback."""

    __slots__ = ("_callback", "_key", "_registry")

    def __init__(self, registry: Registry, key: Key, callback: Callable[[], None]) -> None:
        self._registry = registry
        self._key = key
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back."""
        self._callback = None
        self._registry.forget(self._key, self)

    def fire(self) -> None:
        """Call back, unless cancelled meanwhile."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Registry:
    """The attached sessions of one process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop | Schedules, source: Callable[[], float] = random.random
    ) -> None:
        self._loop = loop
        self._random = source
        self._sessions: dict[Session, None] = {}
        self._by_key: dict[Key, list[Session]] = {}
        self._first: dict[Key, list[Session]] = {}
        self._passed_over: dict[Key, frozenset[str]] = {}
        self.worse: set[Key] = set()
        """Keys for which there is none of the first rank."""
        self.watcher: Watcher | None = None
        self._recent: Session | None = None
        self._recent_key: Key = ("", "", "")
        self._in_a_row = 0
        self._by_connector: dict[tuple[str, str, str], list[Session]] = {}
        self._waiters: dict[Key, dict[Waiter, None]] = {}
        self.on_change: Callable[[Session, Mapping[str, str]], None] = _nobody
        """Told when a session comes, goes, or exposes something else; and of the targets that it may be about."""
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        waiting = sum(len(waiters) for waiters in self._waiters.values())
        return f"<Registry {len(self._sessions)} sessions, {len(self._by_key)} keys, {waiting} waiting>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: Session) -> bool:
        return session in self._sessions

    def next_number(self) -> int:
        """A number for the next session, unique in this process."""
        return next(self._numbers)

    # --- sessions come, change and go

    def attach(self, session: Session) -> None:
        """From now on it takes pushes; whoever waits for one of its targets is called on the next tick."""
        self._sessions[session] = None
        self._by_connector.setdefault(session.identity.key, []).append(session)
        self._expose(session)
        self.on_change(session, session.targets)

    def detach(self, session: Session) -> None:
        """It takes no pushes any more. Detaching twice, or what was never attached, does nothing."""
        if session not in self._sessions:
            return
        del self._sessions[session]
        self._recent = None
        _discard(self._by_connector, session.identity.key, session)
        self._hide(session)
        self.on_change(session, session.targets)

    def update_targets(self, session: Session, targets: Mapping[str, str]) -> None:
        """The connector exposes these from now on, and no others."""
        if session not in self._sessions:
            session.targets = dict(targets)
            return
        self._recent = None
        self._hide(session)
        before = session.targets
        session.targets = dict(targets)
        self._expose(session)
        self.on_change(session, {**before, **targets})

    def on_usable(self, session: Session) -> None:
        """It takes pushes again: whoever waits for one of its targets is called on the next tick."""
        if session in self._sessions:
            self._wake(session)

    def on_room(self, session: Session) -> bool:
        """It was full, and has a place for one push: the first of those who wait for one of its targets is
        called on the next tick. Whether there was one."""
        if self._waiters and session in self._sessions:
            for key in keys_of(session):
                waiters = self._waiters.get(key)
                if waiters:
                    waiter = next(iter(waiters))
                    self.forget(key, waiter)
                    self._loop.call_soon(waiter.fire)
                    return True
        return False

    def pass_over(self, key: Key, connectors: frozenset[str]) -> None:
        """Pushes for `key` go to these connectors only while none of the others takes any."""
        if self._passed_over.get(key, frozenset()) == connectors:
            return
        if connectors:
            self._passed_over[key] = connectors
        else:
            del self._passed_over[key]
        self._recent = None
        self._arrange(key)

    # --- a push looks for a session

    def choose(
        self, tenant: str, location: str, target: str, exclude: Sequence[Session] = (), *, other_connector: bool = False
    ) -> Session | None:
        """The one with fewer pushes in flight of two random ones that may take a push; None when there is none.

        First come those of connectors where the target is well, then those on standby, then those that are passed over:
        what is known of a target may be wrong, and a push that is tried tells. As long as a better one is only full,
        its next place is waited for.

        Two random ones and not the best of all: with many relays' workers choosing at once, the best one would be
        chosen by all of them. Within one turn of the loop pushes for one target go where the last one went, up to
        MAX_IN_A_ROW of them: they leave as one message. None of `exclude` is chosen; with `other_connector` no other
        session of their connectors either.
        """
        key = (tenant, location, target)
        if exclude:
            return self._choose_another(key, exclude, other_connector=other_connector)
        recent = self._recent
        if recent is not None and self._recent_key == key and self._in_a_row < MAX_IN_A_ROW:
            link = recent.link
            if link.is_gathering and link.can_open:
                self._in_a_row += 1
                return recent
        chosen = self._choose_anew(key)
        self._recent, self._recent_key, self._in_a_row = chosen, key, 1
        return chosen

    def _choose_another(self, key: Key, exclude: Sequence[Session], *, other_connector: bool) -> Session | None:
        """Of one rank another connector comes before another tunnel of one that was tried."""
        names = {one.identity.connector for one in exclude}
        others = [one for one in self._by_key.get(key, ()) if one.link.can_open and one not in exclude]
        for rank in RANKS:
            usable = [one for one in others if self.rank(key, one) == rank]
            elsewhere = [one for one in usable if one.identity.connector not in names]
            if elsewhere:
                return self._less_loaded(elsewhere)
            if usable and not other_connector:
                return self._less_loaded(usable)
        return None

    def _choose_anew(self, key: Key) -> Session | None:
        sessions = self._first.get(key)
        if sessions is None:
            return None
        first = sessions[0]
        count = len(sessions)
        if count > 1:  # as _less_loaded, without its call
            draw = self._random
            at = int(draw() * count)
            first, second = sessions[at], sessions[at - 1 - int(draw() * (count - 1))]
            if second.link.in_flight < first.link.in_flight:
                first = second
        if first.link.can_open:
            return first
        every = self._by_key[key]
        for rank in RANKS:
            ranked = [one for one in every if self.rank(key, one) == rank]
            usable = [one for one in ranked if one.link.can_open]
            if usable:
                return self._less_loaded(usable)
            if any(one.link.accepts for one in ranked):
                return None
        return None

    def _less_loaded(self, sessions: list[Session]) -> Session:
        """Of two different ones, if there are two."""
        draw, count = self._random, len(sessions)
        at = int(draw() * count)
        first = sessions[at]
        if count == 1:
            return first
        second = sessions[at - 1 - int(draw() * (count - 1))]
        return second if second.link.in_flight < first.link.in_flight else first

    def rank(self, key: Key, session: Session) -> int:
        """Which of RANKS it has: those with the lowest are chosen first."""
        rank = 1 if session.is_standby else 0
        return rank + 2 if session.identity.connector in self._passed_over.get(key, ()) else rank

    def awaited(self, key: Key) -> int:
        """The best rank of those that are only full, whose next place is waited for; beyond RANKS if there are none."""
        return min((self.rank(key, one) for one in self._by_key.get(key, ()) if one.link.accepts), default=len(RANKS))

    def _arrange(self, key: Key) -> None:
        """Keep at hand those that a push may be put on without a second look."""
        sessions = self._by_key.get(key)
        if sessions is None:
            self._first.pop(key, None)
            self.worse.discard(key)
            return
        ranks = [self.rank(key, one) for one in sessions]
        best = min(ranks)
        if best:
            self.worse.add(key)
        else:
            self.worse.discard(key)
        self._first[key] = [one for one, rank in zip(sessions, ranks, strict=True) if rank == best]

    def wait(self, key: Key, callback: Callable[[], None]) -> Waiter:
        """Call back once, on the tick after a session for `key` (tenant, location, target) is attached, usable again,
        or, first come, first served, was full and has a place."""
        waiter = Waiter(self, key, callback)
        self._waiters.setdefault(key, {})[waiter] = None
        return waiter

    def forget(self, key: Key, waiter: Waiter) -> None:
        """A waiter was cancelled."""
        waiters = self._waiters.get(key)
        if waiters is not None:
            waiters.pop(waiter, None)
            if not waiters:
                del self._waiters[key]

    # --- what is asked

    def sessions(self) -> list[Session]:
        """All, in the order in which they were attached."""
        return list(self._sessions)

    def of_connector(self, key: tuple[str, str, str]) -> list[Session]:
        """Those of one connector (tenant, location, connector)."""
        return list(self._by_connector.get(key, ()))

    def keys(self) -> list[Key]:
        """All keys for which a push could go now."""
        return [key for key in self._by_key if self.count(key)]

    def exposing(self, key: Key) -> list[Session]:
        """Those that expose (tenant, location, target), whatever state they are in."""
        return list(self._by_key.get(key, ()))

    def wake(self, key: Key) -> None:
        """Whoever waits for (tenant, location, target) is called on the next tick."""
        for waiter in self._waiters.pop(key, ()):
            self._loop.call_soon(waiter.fire)

    def doubt(self, key: Key, session: Session) -> bool:
        """A session here is what it says: there is nothing to doubt."""
        return False

    def count(self, key: Key) -> int:
        """Sessions by which a push for (tenant, location, target) could go now."""
        return sum(1 for session in self._by_key.get(key, ()) if session.link.can_open)

    # --- within

    def _expose(self, session: Session) -> None:
        keys = keys_of(session)
        for key in keys:
            self._by_key.setdefault(key, []).append(session)
            self._arrange(key)
        if self.watcher is not None:
            self.watcher.exposed(session, keys)
        self._wake(session)

    def _wake(self, session: Session) -> None:
        if not self._waiters:
            return
        for key in keys_of(session):
            self.wake(key)

    def _hide(self, session: Session) -> None:
        keys = keys_of(session)
        for key in keys:
            _discard(self._by_key, key, session)
            self._arrange(key)
        if self.watcher is not None:
            self.watcher.hidden(session, keys)


def _nobody(_session: Session, _targets: Mapping[str, str]) -> None:
    """Nobody wants to know."""


def _discard(table: dict[Key, list[Session]], key: Key, session: Session) -> None:
    sessions = table[key]
    sessions.remove(session)
    if not sessions:
        del table[key]
