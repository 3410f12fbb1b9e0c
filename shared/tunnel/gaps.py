"""Notices that the process was away: stopped, swapped out, or its virtual machine suspended.

A process that wakes up finds old messages in its socket buffers, and its loop may hand them out before any timer fires.
So a heartbeat says when the loop was last seen alive, and whoever is about to act on what came looks here first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

BEAT: Final = 0.25
"""Seconds between heartbeats."""

GAP: Final = 1.0
"""Seconds without one that count as having been away."""


def _seconds_since_boot() -> float:
    """Unlike the loop's clock this one goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class GapWatch:
    """One per event loop. Calls every listener, with the loop's time, once for each gap."""

    __slots__ = ("_beat_at", "_boot_at", "_boottime", "_handle", "_listeners", "_loop", "gaps")

    def __init__(self, loop: asyncio.AbstractEventLoop, boottime: Callable[[], float] = _seconds_since_boot) -> None:
        self._loop = loop
        self._boottime = boottime
        self._beat_at = loop.time()
        self._boot_at = self._boottime()
        self._handle: asyncio.TimerHandle | None = None
        self._listeners: set[Callable[[float], None]] = set()
        self.gaps = 0

    def __repr__(self) -> str:
        return f"<GapWatch {self.gaps} gaps, {len(self._listeners)} listeners>"

    def start(self) -> None:
        """Start the heartbeat."""
        self._beat()

    def stop(self) -> None:
        """Stop the heartbeat."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def add(self, listener: Callable[[float], None]) -> None:
        """Tell `listener` of each gap from now on."""
        self._listeners.add(listener)

    def remove(self, listener: Callable[[float], None]) -> None:
        """Tell it no more."""
        self._listeners.discard(listener)

    def look(self, now: float) -> None:
        """Was the loop away until just now? Then tell all listeners, before the caller goes on. Without a heartbeat:
        never."""
        if self._handle is None:
            return
        boot = self._boottime()
        if now - self._beat_at < GAP and boot - self._boot_at < GAP:
            return
        self._beat_at, self._boot_at = now, boot
        self.gaps += 1
        for listener in list(self._listeners):
            listener(now)

    def _beat(self) -> None:
        now = self._loop.time()
        if self._handle is not None:
            self.look(now)
        self._beat_at = now
        self._boot_at = self._boottime()
        self._handle = self._loop.call_later(BEAT, self._beat)
