"""The time of day, believed only as far as it agrees with time that cannot be set.

Certificates hang on the wall clock, and a wall clock may be set wrong by a hand, a broken NTP server or a resumed
virtual machine. Within one process, monotonic time tells: from the last moment at which the clock was right, so many
seconds have passed. A wall clock that jumps away from that by more than TOLERANCE is not believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

TOLERANCE: Final = 120.0
"""Seconds by which the wall clock may be off the reckoning before it is doubted. NTP slews and steps by less."""


def _monotonic() -> float:
    """Time that also passes while the machine is suspended, where the system has it."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def rfc3339(at: datetime | None) -> str | None:
    """A time as all our outputs write it: 2025-01-31T08:15:30Z; None stays None."""
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class TrustedClock:
    """Says what time it is. `observe` anchors it to a better clock: for a connector, the relay's."""

    __slots__ = ("_anchored_at", "_anchored_wall", "_is_led", "_monotonic", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = _monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._is_led = False
        self._anchored_at = monotonic()
        self._anchored_wall = wall()

    def __repr__(self) -> str:
        return f"<TrustedClock {self.now():%FT%TZ} error={self.error_seconds:.0f}s>"

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def wall_now(self) -> datetime:
        """What the wall clock says, believed or not."""
        return datetime.fromtimestamp(self._wall(), UTC)

    def timestamp(self) -> float:
        """The time in Unix seconds: the wall clock's, as long as it is not doubtful."""
        reckoned, wall = self._reckoned(), self._wall()
        if abs(wall - reckoned) > TOLERANCE:
            return reckoned
        if not self._is_led:
            # What little it has moved is believed, so that a slow drift never adds up to a doubt.
            self._anchored_at, self._anchored_wall = self._monotonic(), wall
        return wall

    @property
    def error_seconds(self) -> float:
        """How far the wall clock is from what is believed: positive when it is fast."""
        return self._wall() - self._reckoned()

    @property
    def is_doubtful(self) -> bool:
        """Whether the wall clock is not believed."""
        return abs(self.error_seconds) > TOLERANCE

    def observe(self, wall: float) -> None:
        """A better clock says that it is `wall` (Unix seconds) now: from now on that is what ours is measured by."""
        self._is_led = True
        self._anchored_at, self._anchored_wall = self._monotonic(), wall

    def _reckoned(self) -> float:
        return self._anchored_wall + (self._monotonic() - self._anchored_at)
