"""Places that many want: whoever comes may have one while there are plenty; once they run short, equal shares count.

Nothing is kept back for anybody by name, and nothing is taken away again. While seven of eight places are not taken,
none is refused. The last eighth is for those who hold less than an equal share among all that hold any, with room for
one more of them (max-min): one that floods gets nothing while others are short, and as its own end they find theirs.
Of the last sixteenth, moreover, nobody may hold more than half of what is still free, so that whoever holds nothing
finds a place when others have come before (Choudhury and Hahne's dynamic thresholds, of switches whose ports share one
memory).

Asking costs a few comparisons, and callers need not ask before `is_short`.
"""

from __future__ import annotations

from typing import Final

LAST: Final = 8
"""One of so many places is among the last: with fewer than so many, none is."""

VERY_LAST: Final = 16
"""One of so many is for those who hold next to nothing."""

_ANY_NUMBER: Final = 1 << 30


class Holding:
    """What one party, a tenant or a network, has of the places."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0

    def __repr__(self) -> str:
        return f"<Holding {self.held}>"


class Places:
    """`limit` places. `parties`: how many there are that may want some; one alone may have all of them.

    A `take` is followed by exactly one `give_back` with the same holding.
    """

    __slots__ = ("_limit", "_parties", "active", "held", "mark")

    def __init__(self, limit: int, parties: int = _ANY_NUMBER) -> None:
        self.held = self.active = self.mark = self._limit = 0
        """`active`: parties that hold any. `mark`: with so many taken, they are short."""
        self._parties = parties
        self.resize(limit, parties)

    @property
    def limit(self) -> int:
        """How many there are."""
        return self._limit

    def resize(self, limit: int, parties: int | None = None) -> None:
        """There are so many from now on. What is held stays held."""
        if parties is not None:
            self._parties = max(1, parties)
        self._limit = limit
        self.mark = limit if self._parties == 1 else limit - limit // LAST

    @property
    def is_short(self) -> bool:
        """Whether it matters who asks."""
        return self.held >= self.mark

    def may_take(self, holding: Holding) -> bool:
        """Whether this party may have one more. Asking takes nothing."""
        free = self._limit - self.held
        if self.held < self.mark or free <= 0:
            return free > 0
        mine = holding.held
        if mine == 0:
            return True
        is_complete = self.active >= self._parties
        share = self._limit // (self.active if is_complete else self.active + 1)
        return mine < share and (is_complete or free > self._limit // VERY_LAST or 2 * mine < free)

    def take(self, holding: Holding) -> None:
        """Count one more."""
        if holding.held == 0:
            self.active += 1
        holding.held += 1
        self.held += 1

    def give_back(self, holding: Holding) -> None:
        """Count one less."""
        holding.held -= 1
        if holding.held == 0:
            self.active -= 1
        self.held -= 1

    def __repr__(self) -> str:
        return f"<Places {self.held} of {self._limit} held by {self.active}>"
