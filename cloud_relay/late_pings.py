"""Whether pushes pile up on their way: by pings in the tunnels that carry the most, compared with quiet times.

A ping goes first in its tunnel, and both programs' loops handle it as it comes. So what it takes longer than on a quiet
path is what every push waits at each end, and a target that is slow does not show in it.

A tunnel leads to one location of one tenant, and so whatever delays it alone is that one's: its line, its connector,
which may mean harm. So what pushes wait is told by the tunnels to where they go. Our own loop delays those of all.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import Final, Protocol, TypeAlias

Place: TypeAlias = "tuple[str, str]"
"""Where a tunnel leads: tenant and location."""

SLACK: Final = 0.002
"""Seconds that a ping may be late, or a quarter of what it takes on a quiet path."""

SILENT: Final = 0.5
"""Seconds without an answer that say nothing about a pile: whoever is at the other end is away. See the liveness."""

PINGED: Final = 8
"""How many tunnels are pinged, to as many locations as there are."""

BASE_FOR: Final = 300.0
"""Seconds for which a path's quiet round trip is believed: two spans of it."""

_INFINITE: Final = float("inf")


class Link(Protocol):
    """What is asked of a tunnel."""

    @property
    def in_flight(self) -> int: ...
    @property
    def last_ping(self) -> tuple[float, float]:
        """How long the ping took that was answered last, and when that was, by the loop's time."""
        ...

    def ping(self) -> None: ...


class Path:
    """One tunnel that is pinged: how long that takes when it is quiet, and now."""

    __slots__ = ("_asked_at", "_base", "_base_until", "_link", "_old_base", "is_late", "queued")

    def __init__(self, link: Link, now: float) -> None:
        self._link = link
        self._base = self._old_base = link.last_ping[0]  # of the one that was sent when it was attached
        self._base_until = now + BASE_FOR
        self._asked_at = _INFINITE
        self.queued = 0.0
        """Seconds that the last ping took longer than on a quiet path, or that the one under way does already."""
        self.is_late = False
        """Whether that is notable."""

    def look(self, now: float) -> bool:
        """Whether pings take notably longer than on a quiet path. Asks again, once the last one is answered."""
        self.is_late = self._look(now)
        return self.is_late

    def _look(self, now: float) -> bool:
        took, came_at = self._link.last_ping
        if came_at < self._asked_at < _INFINITE:
            took = max(took, now - self._asked_at)
            if now - self._asked_at > SILENT:
                self.queued = 0.0
                return False
        else:
            self._note(took, now)
            self._asked_at = now
            self._link.ping()
        base = min(self._base, self._old_base)
        self.queued = max(0.0, took - base) if base < _INFINITE else 0.0
        return self.queued > max(SLACK, base / 4)

    def rest(self) -> None:
        """It is not pinged for now: an answer that is still to come counts no more."""
        self._asked_at = _INFINITE
        self.queued = 0.0
        self.is_late = False

    def _note(self, took: float, now: float) -> None:
        if now >= self._base_until:
            self._base_until = now + BASE_FOR
            self._old_base, self._base = self._base, took
        self._base = min(self._base, took)


class LatePings:
    """The tunnels that are pinged, each with the place that it leads to, and what is known of them from before."""

    __slots__ = ("_known", "_paths", "_waits")

    def __init__(self) -> None:
        self._known: dict[Link, Path] = {}
        self._paths: list[tuple[Place, Path]] = []
        self._waits: dict[Place, tuple[float, bool]] = {}
        """By place, what `wait_of` says of it."""

    @property
    def is_pinging(self) -> bool:
        """Whether there is any tunnel to ping."""
        return bool(self._paths)

    def wait_of(self, tenant: str, locations: Collection[str] = ()) -> tuple[float, bool]:
        """Seconds that a push of this tenant waits in one pass of both loops, at the worst, on its way to one of these
        locations (to any, if there are none), and whether pings are late there, at the last look; where no tunnel
        there is pinged, what all others wait at the least."""
        there = [
            wait for (whose, where), wait in self._waits.items()
            if whose == tenant and (not locations or where in locations)
        ]  # fmt: skip
        if there:
            return max(there)[0], any(is_late for _, is_late in there)
        return min(self._waits.values(), default=(0.0, False))

    def choose(self, links: Iterable[tuple[Place, Link]], now: float) -> None:
        """Ping those of `links` that carry the most, and those that did so lately; forget what is not among them."""
        links = list(links)
        self._known = {link: self._known[link] for _, link in links if link in self._known}
        chosen = [(place, link) for place, link in _busiest(links) if link.in_flight or link in self._known]
        for _, link in chosen:
            if link not in self._known:
                self._known[link] = Path(link, now)
        paths = [(place, self._known[link]) for place, link in chosen]
        for one in self._paths:
            if one not in paths:
                one[1].rest()
        self._paths = paths

    def look(self, now: float) -> bool:
        """Whether pings are late in any of them. Each is asked again."""
        self._waits = {}
        for place, path in self._paths:
            is_late = path.look(now)
            queued, was_late = self._waits.get(place, (0.0, False))
            self._waits[place] = max(queued, path.queued), was_late or is_late
        return any(is_late for _, is_late in self._waits.values())

    def pause(self) -> None:
        """Count no answer that is still to come."""
        for _, path in self._paths:
            path.rest()

    def rest(self) -> None:
        """Ping nobody for now."""
        self.pause()
        self._paths = []
        self._waits = {}

    def __repr__(self) -> str:
        worst = max((queued for queued, _ in self._waits.values()), default=0.0)
        return f"<LatePings {len(self._paths)} paths, {worst * 1e3:.1f} ms>"


def _busiest(links: list[tuple[Place, Link]]) -> list[tuple[Place, Link]]:
    """PINGED of them at most: of each place the one that carries the most comes before any other."""
    first: dict[Place, tuple[Place, Link]] = {}
    for one in links:
        best = first.get(one[0])
        if best is None or one[1].in_flight > best[1].in_flight:
            first[one[0]] = one
    chosen = heapq.nlargest(PINGED, first.values(), key=_load)
    more = heapq.nlargest(PINGED, links, key=_load) if len(chosen) < PINGED else []
    return [*chosen, *(one for one in more if one not in chosen)][:PINGED]


def _load(one: tuple[Place, Link]) -> int:
    return one[1].in_flight
