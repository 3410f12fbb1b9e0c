"""Turns in several levels: groups take turns, within a group its members, and so on.

So whoever has many members (an IPv6 network of 48 bits has 65,536 of 64 bits) gets no more turns than who has one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from cloud_relay.tally import Tally

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """What waits, each under a path of `levels` keys, from the group down to its owner. Nothing that waits is None."""

    __slots__ = ("_below", "_count", "_levels", "_tally")

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._below: OrderedDict[Hashable, Turns[Item] | deque[Item]] = OrderedDict()
        self._tally: Tally[Hashable] = Tally()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Item, *path: Hashable) -> None:
        """Behind all of the same owner; an owner that is new in its group comes last there, and so does a new group."""
        key = path[0]
        below = self._below.get(key)
        if below is None:
            below = self._below[key] = Turns(self._levels - 1) if self._levels > 1 else deque()
        if isinstance(below, Turns):
            below.add(item, *path[1:])
        else:
            below.append(item)
        self._tally.add(key)
        self._count += 1

    def next(self, may: Callable[[Hashable], bool] | None = None) -> Item | None:
        """Take the first thing of the owner whose turn it is, among those that `may`; None when there is none.

        The owner then comes last in its group, the group last among groups.
        """
        for key, below in self._below.items():
            if isinstance(below, Turns):
                item = below.next(may)
            else:
                item = below.popleft() if may is None or may(key) else None
            if item is not None:
                self._below.move_to_end(key)
                self._taken(key)
                return item
        return None

    def drop(self) -> Item:
        """Take the last thing of whoever has most, in the group that has most: of equals, of the one that came to have
        so many last. KeyError when nothing waits."""
        if not self._count:
            raise KeyError("nothing waits")
        key = self._tally.largest(latest=True)
        below = self._below[key]
        item = below.drop() if isinstance(below, Turns) else below.pop()
        self._taken(key)
        return item

    def __iter__(self) -> Iterator[Item]:
        for below in self._below.values():
            yield from below

    def _taken(self, key: Hashable) -> None:
        if not self._below[key]:
            del self._below[key]
        self._tally.remove(key)
        self._count -= 1

    def __repr__(self) -> str:
        return f"<Turns {self._count} waiting in {len(self._below)} groups>"
