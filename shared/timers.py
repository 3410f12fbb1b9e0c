"""A timer that is set far more often than it fires.

A deadline that moves with each push would cost a timer handle a push, and the loop's heap would fill with cancelled
ones. A LazyTimer keeps at most one handle armed: moving its deadline later stores one attribute, and when the handle
fires too early it arms itself again for the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def _nothing() -> None: ...


class LazyTimer:
    """Calls `callback` once, at or after the deadline last `set`, on `loop`.

    `deadline` is in the loop's time (`loop.time()`), 0.0 means not set. The callback may set the timer again.
    Not thread-safe, as nothing of the loop's is.
    """

    __slots__ = ("_armed", "_callback", "_handle", "_loop", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self.deadline = 0.0

    @property
    def is_set(self) -> bool:
        """Whether a callback is due."""
        return self.deadline != 0.0

    def set(self, when: float) -> None:
        """Call back at `when`, in place of any deadline before. Only one before what is armed costs a new handle."""
        self.deadline = when
        if self._handle is None:
            self._arm(when)
        elif when < self._armed:
            self._handle.cancel()
            self._arm(when)

    def cancel(self) -> None:
        """Forget the deadline. The armed handle stays, fires once into nothing, or serves the next `set`."""
        self.deadline = 0.0

    def close(self) -> None:
        """Forget the deadline and let go of the loop's handle, so that nothing holds the timer's owner any more."""
        self.deadline = 0.0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def release(self) -> None:
        """`close` for good. What holds a timer and gave it a method of its own is a cycle until then."""
        self.close()
        self._callback = _nothing

    def _arm(self, when: float) -> None:
        self._armed = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        deadline = self.deadline
        if deadline == 0.0:
            return
        # Was it armed for an earlier deadline than the one that counts now? The comparison is with what was armed, not
        # with the clock: a loop may fire a handle up to its clock's resolution early.
        if deadline > self._armed:
            self._arm(deadline)
            return
        self.deadline = 0.0
        self._callback()

    def __repr__(self) -> str:
        return f"<LazyTimer deadline={self.deadline:.3f} armed={self._armed if self._handle else 0.0:.3f}>"


def precise_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock, finer where the loop's own is coarse: uvloop's counts whole milliseconds.

    Its values may be given to `loop.call_at`, since both count CLOCK_MONOTONIC's seconds.
    """
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time
