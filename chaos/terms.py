"""The terms of a fault: what may fail while it lasts, for whom, and within what time all must be well again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RECOVERY: Final = 1.0
"""Seconds from the end of a fault until pushes flow."""

NOTICED: Final = 5.0
"""Seconds of silence after which a tunnel with pushes in flight counts as dead."""


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when the fault lasted, in monotonic seconds."""

    began: float
    ended: float

    def overlaps(self, since: float, until: float) -> bool:
        return since <= self.ended and until >= self.began

    def widened(self, seconds: float) -> Window:
        """With what comes after it."""
        return Window(self.began, self.ended + seconds)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one kind of fault may do.

    `hurts` names the tenants whose tries may fail; nobody else's may. With `spares_others` tries that may be
    repeated do not fail even there: another connector takes them. `codes` are those that failures may have, all of
    the catalogue if empty. Where `is_silent`, tries may end without an answer: the relay is away, or the way to it.
    `recovery` bounds the seconds from the fault's end to the first acknowledged push, `slowest` those that a try
    may take. `aftermath` is how long after the end tries may still fail by it, `delay` what the fault adds to the
    time from sender to target, and `holds_up` says that pushes may reach the relay as late as the fault lasts.
    """

    hurts: frozenset[str] = frozenset()
    spares_others: bool = False
    codes: frozenset[str] = frozenset()
    is_silent: bool = False
    recovery: float = RECOVERY
    slowest: float | None = None
    aftermath: float = RECOVERY
    delay: float = 0.0
    holds_up: bool = False
