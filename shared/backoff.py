"""How long to wait before the next try: full jitter, so that many peers that lost the same thing do not return as one.

Every delay is drawn evenly from the whole of [0, bound), and the bound doubles from `first` up to a cap. A lower limit
under the jitter would bring the crowd back together at that limit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

FIRST: Final = 0.2
"""Seconds. The bound of the first delay: a short break is over before anyone notices."""


class Backoff:
    """An endless iterator of delays in seconds.

    `cap` may be changed at any time (the relay's advice comes with each HELLO); a bound above it comes down with the
    next delay. The caller resets it by hand, once what it retried has proven to last.

    >>> backoff = Backoff(cap=1.0)
    >>> 0 <= next(backoff) < FIRST
    True
    """

    __slots__ = ("_bound", "_random", "cap", "first", "tries")

    def __init__(self, cap: float, first: float = FIRST, source: Callable[[], float] = random.random) -> None:
        """Delays up to `cap` seconds; `source` gives numbers in [0, 1)."""
        self.first = first
        self.cap = cap
        self.tries = 0
        self._bound = first
        self._random = source

    def __iter__(self) -> Backoff:
        return self

    def __next__(self) -> float:
        bound = min(self._bound, self.cap)
        self._bound = min(self._bound * 2, max(self.cap, self.first))
        self.tries += 1
        return self._random() * bound

    def reset(self) -> None:
        """Start again from `first`."""
        self.tries = 0
        self._bound = self.first

    def __repr__(self) -> str:
        return f"<Backoff tries={self.tries} bound={min(self._bound, self.cap):g} cap={self.cap:g}>"
