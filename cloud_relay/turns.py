"""Turns in two levels: groups take turns, and within a group its members do, each with its things in their order.

So whoever has many members (an IPv6 network of 48 bits has 65,536 of 64 bits) gets no more turns than who has one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from cloud_relay.tally import Tally

Item = TypeVar("Item")


class _Group(Generic[Item]):
    """The members of one group that have something that waits, and how much."""

    __slots__ = ("members", "tally")

    def __init__(self) -> None:
        self.members: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self.tally: Tally[Hashable] = Tally()


class Turns(Generic[Item]):
    """What waits. Both kinds of keys may be anything; a member is one of its group only."""

    __slots__ = ("_count", "_groups", "_tally")

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, _Group[Item]] = OrderedDict()
        self._tally: Tally[Hashable] = Tally()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, group: Hashable, member: Hashable, item: Item) -> None:
        """At the end of the member's own; a member that is new in its group comes last there, as does a new group."""
        known = self._groups.setdefault(group, _Group())
        known.members.setdefault(member, deque()).append(item)
        known.tally.add(member)
        self._tally.add(group)
        self._count += 1

    def next(self, may: Callable[[Hashable], bool] | None = None) -> Item | None:
        """Take the first thing of the member whose turn it is, among those that `may`; None when there is none.

        The member then comes last in its group, the group last of all.
        """
        for group, known in self._groups.items():
            for member, items in known.members.items():
                if may is None or may(member):
                    item = items.popleft()
                    known.members.move_to_end(member)
                    self._groups.move_to_end(group)
                    self._taken(group, member)
                    return item
        return None

    def drop(self) -> Item:
        """Take the last thing of the member with most, in the group with most. KeyError when nothing waits."""
        group = self._tally.largest()
        if group is None:
            raise KeyError("nothing waits")
        known = self._groups[group]
        member = known.tally.largest()
        item = known.members[member].pop()
        self._taken(group, member)
        return item

    def __iter__(self) -> Iterator[Item]:
        for known in self._groups.values():
            for items in known.members.values():
                yield from items

    def _taken(self, group: Hashable, member: Hashable) -> None:
        known = self._groups[group]
        if not known.members[member]:
            del known.members[member]
            if not known.members:
                del self._groups[group]
        known.tally.remove(member)
        self._tally.remove(group)
        self._count -= 1

    def __repr__(self) -> str:
        members = sum(len(known.members) for known in self._groups.values())
        return f"<Turns {self._count} of {members} in {len(self._groups)} groups waiting>"
