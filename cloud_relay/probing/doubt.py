"""What pushes tell of one target behind one connector, from the first one that failed. Pure.

In the manner of outlier detection as load balancers know it: so many failures in a row, or too large a share of them,
and the place is passed over for a while, longer each time. It comes back by a probe, or, where nobody answers probes,
when the time is up.
"""

from __future__ import annotations

from typing import Final

IN_A_ROW: Final = 5
"""Failures without a delivery in between."""

SHARE: Final = 0.5
"""Of the pushes within WINDOW, failed, …"""

ENOUGH: Final = 20
"""… once there were so many."""

WINDOW: Final = 30.0
"""Seconds over which pushes are counted, from the first failure on."""

FIRST: Final = 5.0
"""Seconds for which it is passed over the first time; twice as long each further time, …"""

LONGEST: Final = 60.0
"""… up to this."""

MEMORY: Final = 300.0
"""Seconds after which a place that came back is as good as one that was never taken out."""


class Doubt:
    """`code` is that of the last failure. `out_until` in the loop's time: before it nothing brings the place back."""

    __slots__ = ("_delivered", "_failed", "_in_a_row", "_last", "_since", "code", "is_tripped", "out_until", "times")

    def __init__(self, now: float) -> None:
        self._since = self._last = now
        self._in_a_row = self._failed = self._delivered = 0
        self.code = ""
        self.is_tripped = False
        self.out_until = 0.0
        self.times = 0

    def fail(self, code: str, now: float) -> bool:
        """A push failed by this code. Whether that trips it just now."""
        self._roll(now)
        self._last = now
        self.code = code
        self._in_a_row += 1
        self._failed += 1
        if self.is_tripped or not (self._in_a_row >= IN_A_ROW or self._is_too_much()):
            return False
        self.is_tripped = True
        self.out_until = now + min(FIRST * 2.0**self.times, LONGEST)
        self.times += 1
        return True

    def deliver(self, now: float) -> None:
        """A push was answered by the target."""
        self._roll(now)
        self._in_a_row = 0
        self._delivered += 1

    def may_return(self, now: float) -> bool:
        """Whether it was passed over for long enough."""
        return now >= self.out_until

    def come_back(self, now: float) -> None:
        """Pushes go there again, and are counted anew."""
        self.is_tripped = False
        self._last = now
        self._in_a_row = 0
        self._start(now)

    def is_forgotten(self, now: float) -> bool:
        """Whether there is nothing left to remember."""
        return not self.is_tripped and now - self._last > (MEMORY if self.times else WINDOW)

    def _is_too_much(self) -> bool:
        total = self._failed + self._delivered
        return total >= ENOUGH and self._failed >= SHARE * total

    def _roll(self, now: float) -> None:
        if now - self._since > WINDOW:
            self._start(now)

    def _start(self, now: float) -> None:
        self._since = now
        self._failed = self._delivered = 0

    def __repr__(self) -> str:
        state = "tripped" if self.is_tripped else "counting"
        return f"<Doubt {state} {self._failed} failed, {self._delivered} delivered, {self._in_a_row} in a row>"
