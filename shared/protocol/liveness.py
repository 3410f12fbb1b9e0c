"""When to ask the peer, when to doubt it, when to give it up.

Any inbound byte counts as alive, our own writes never do. With pushes in flight silence is counted from the later of
the last byte and the moment the tunnel became busy: a tunnel that was idle owed us nothing.
"""

from __future__ import annotations

from shared.protocol.settings import Settings


class Liveness:
    """One side's judgement of one tunnel. Only the connector pings by itself."""

    __slots__ = ("_busy_since", "_pings", "_settings", "is_busy", "last_ping", "last_received", "last_sent")

    def __init__(self, settings: Settings, *, pings: bool, now: float) -> None:
        self._settings = settings
        self._pings = pings
        self._busy_since = -1.0
        self.is_busy = False
        """Whether pushes are in flight."""
        self.last_received = now
        self.last_sent = now
        self.last_ping = now

    def __repr__(self) -> str:
        return f"<Liveness received={self.last_received:.3f} sent={self.last_sent:.3f} busy={self.is_busy}>"

    def on_busy(self, now: float) -> None:
        """The first push is in flight."""
        self.is_busy = True
        self._busy_since = now

    def on_idle(self) -> None:
        """The last push is over."""
        self.is_busy = False
        self._busy_since = -1.0

    def forgive(self, now: float) -> None:
        """We ourselves were away: the peer's silence means nothing."""
        self.last_received = now

    def silence(self, now: float) -> float:
        """Seconds for which the peer owes us a sign of life."""
        return now - max(self.last_received, self._busy_since)

    def is_suspect(self, now: float) -> bool:
        """Whether it should get no new pushes."""
        return self.is_busy and self.silence(now) >= self._settings.suspect_after

    def is_dead(self, now: float) -> bool:
        """Whether it should be given up."""
        return self.silence(now) >= (self._settings.dead_after if self.is_busy else self._settings.dead_after_idle)

    def wants_ping(self, now: float) -> bool:
        """Whether it is time to ask."""
        return self._pings and now >= self._ping_due()

    def next_deadline(self) -> float:
        """When to look again."""
        settings = self._settings
        heard = max(self.last_received, self._busy_since)
        due = heard + (settings.dead_after if self.is_busy else settings.dead_after_idle)
        if self._pings:
            return min(due, self._ping_due())
        return min(due, heard + settings.suspect_after) if self.is_busy else due

    def _ping_due(self) -> float:
        settings = self._settings
        if not self.is_busy:
            return max(self.last_ping, min(self.last_sent, self.last_received)) + settings.ping_idle
        quiet_since = max(self.last_ping, min(self.last_sent, self.last_received))
        return min(quiet_since + settings.ping_busy, self.last_ping + settings.ping_at_least)
