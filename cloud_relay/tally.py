"""How many each has, and who has the most: every step costs the same, however many there are."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Tally(Generic[Key]):
    """A count by key."""

    __slots__ = ("_counts", "_most", "_ranks")

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}
        self._ranks: dict[int, dict[Key, None]] = {}  # those with so many, in the order in which they came to have it
        self._most = 0

    def add(self, key: Key) -> None:
        """One more."""
        count = self._counts.get(key, 0) + 1
        self._move(key, count - 1, count)
        self._most = max(self._most, count)

    def remove(self, key: Key) -> None:
        """One less. KeyError where there is none."""
        count = self._counts[key] - 1
        self._move(key, count + 1, count)
        if self._most not in self._ranks:  # it was the only one with the most, and has one less now
            self._most = count

    def largest(self, *, latest: bool = False) -> Key | None:
        """Who has the most; None when nobody has any. Of several, who came to have it first, or last."""
        if not self._most:
            return None
        rank = self._ranks[self._most]
        return next(reversed(rank) if latest else iter(rank))

    def __getitem__(self, key: Key) -> int:
        return self._counts.get(key, 0)

    def __len__(self) -> int:
        return len(self._counts)

    def _move(self, key: Key, old: int, new: int) -> None:
        if old:
            rank = self._ranks[old]
            del rank[key]
            if not rank:
                del self._ranks[old]
        if new:
            self._counts[key] = new
            self._ranks.setdefault(new, {})[key] = None
        else:
            del self._counts[key]

    def __repr__(self) -> str:
        return f"<Tally of {len(self._counts)}, {self._most} at most>"
