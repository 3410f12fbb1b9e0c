"""The memory that all tunnels of a process may use together for bytes under way.

Counted are bytes that were received and not yet consumed, and bytes queued and not yet sent. Every connection adds and
subtracts as it goes. When the budget is spent, one stream has to go: the one that has held most for longest. Never a
tunnel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.protocol.stream import Stream

DEFAULT_BUDGET: Final = 256 * 1024 * 1024
"""Bytes: 100,000 small pushes under way, or 250 stalled streams with their whole first credit."""


class MemoryBudget:
    """One per process, shared by its connections.

    `used` is changed in place by the connections, since that is done for every frame. `victims` counts the streams that
    had to go.
    """

    __slots__ = ("_members", "limit", "used", "victims")

    def __init__(self, limit: int = DEFAULT_BUDGET) -> None:
        self.limit = limit
        self.used = 0
        self.victims = 0
        self._members: set[Iterable[Stream]] = set()

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used} of {self.limit} bytes, {self.victims} victims>"

    @property
    def is_spent(self) -> bool:
        """Whether more is held than the limit allows."""
        return self.used > self.limit

    def join(self, streams: Iterable[Stream]) -> None:
        """Make a connection's streams known, so that one of them can be chosen."""
        self._members.add(streams)

    def leave(self, streams: Iterable[Stream]) -> None:
        """Forget a connection's streams."""
        self._members.discard(streams)

    def pick_victim(self, now: float) -> Stream | None:
        """The stream whose bytes times stalled seconds is largest; None when no stream holds any bytes."""
        worst: Stream | None = None
        worst_score = 0.0
        for streams in self._members:
            for stream in streams:
                held = stream.held_bytes
                if held and (score := held * (now - stream.progress_at + 0.001)) > worst_score:
                    worst, worst_score = stream, score
        if worst is not None:
            self.victims += 1
        return worst
