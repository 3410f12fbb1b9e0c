"""Who waits at a port, and who has to go when there are too many: the one that has waited longest.

A connection that does what it should waits for a round trip; one that only fills a place waits until its deadline. So
the oldest goes: of those that count under the same key where that key has its share, else of the group of keys that has
the most. Whoever fills his share pushes out his own connections, a network with many addresses its own, and nobody is
ever turned away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from cloud_relay.tally import Tally


class Guest(Protocol):
    """What waits."""

    def make_way(self) -> None:
        """It has to go: it calls `Crowd.leave` from within."""


One = TypeVar("One", bound=Guest)


class Crowd(Generic[One]):
    """All that wait at one port, each under a key: whose it is; `group_of` says which keys belong together."""

    __slots__ = ("_group_of", "_groups", "_keys", "_limit", "_shares", "_tally")

    def __init__(self, limit: int, group_of: Callable[[str], str]) -> None:
        self._limit = limit
        self._group_of = group_of
        self._keys: OrderedDict[One, str] = OrderedDict()
        self._shares: dict[str, OrderedDict[One, None]] = {}
        self._groups: dict[str, OrderedDict[One, None]] = {}
        self._tally: Tally[str] = Tally()

    def join(self, one: One, key: str, share: int) -> None:
        """One more, of those under `key`, which may be `share` at once."""
        self._make_room(key, share)
        if len(self._keys) >= self._limit and (largest := self._tally.largest()) is not None:
            next(iter(self._groups[largest])).make_way()
        self._count(one, key)

    def move(self, one: One, key: str, share: int) -> None:
        """From now on it counts under another key. It stays as old as it is among all."""
        if self._keys.get(one, key) != key:
            self._forget(one)
            self._make_room(key, share)
            self._count(one, key)

    def leave(self, one: One) -> None:
        """It waits no more. Does nothing to one that has left."""
        if one in self._keys:
            self._forget(one)
            del self._keys[one]

    def everybody(self) -> list[One]:
        """All of them, the oldest first."""
        return list(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Crowd of {len(self._keys)} under {len(self._shares)} keys>"

    def _make_room(self, key: str, share: int) -> None:
        held = self._shares.get(key)
        if held is not None and len(held) >= share:
            next(iter(held)).make_way()

    def _count(self, one: One, key: str) -> None:
        group = self._group_of(key)
        self._keys[one] = key
        self._shares.setdefault(key, OrderedDict())[one] = None
        self._groups.setdefault(group, OrderedDict())[one] = None
        self._tally.add(group)

    def _forget(self, one: One) -> None:
        key = self._keys[one]
        group = self._group_of(key)
        _take_out(self._shares, key, one)
        _take_out(self._groups, group, one)
        self._tally.remove(group)


def _take_out(kept: dict[str, OrderedDict[One, None]], key: str, one: One) -> None:
    held = kept[key]
    del held[one]
    if not held:
        del kept[key]
