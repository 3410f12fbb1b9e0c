"""When to ask the peer, when to doubt it, when to give it up.

Without pushes any inbound byte counts as alive; our own writes never do. With pushes in flight a peer's PING alone is
no proof: it comes by itself, also where nothing of ours arrives any more. All else does: it is an answer, or it ends
when our credit does. Silence is then counted from the later of the last proof and the moment the tunnel became busy: a
tunnel that was idle owed us nothing.
"""

from __future__ import annotations

from shared.protocol.settings import Settings


class Liveness:
    """One side's judgement of one tunnel. Without pushes only the connector pings by itself."""

    __slots__ = (
        "_busy_since", "_pings", "_settings", "is_busy", "last_ping", "last_proof", "last_received", "last_sent",
        "partial_at",
    )  # fmt: skip

    def __init__(self, settings: Settings, *, pings: bool, now: float) -> None:
        self._settings = settings
        self._pings = pings
        self._busy_since = -1.0
        self.is_busy = False
        """Whether pushes are in flight."""
        self.last_received = now
        self.last_proof = now
        """When a message came that was more than a PING."""
        self.partial_at = now
        """When bytes came that make no message yet; 0.0 once they do."""
        self.last_sent = now
        self.last_ping = now

    def __repr__(self) -> str:
        return f"<Liveness received={self.last_received:.3f} sent={self.last_sent:.3f} busy={self.is_busy}>"

    def on_busy(self, now: float) -> float:
        """The first push is in flight. When to look next."""
        self.is_busy = True
        self._busy_since = now
        if self._pings:
            return self.next_deadline()
        return now + min(self._settings.ping_busy, self._settings.suspect_after)

    def on_idle(self) -> None:
        """The last push is over."""
        self.is_busy = False
        self._busy_since = -1.0

    def forgive(self, now: float) -> None:
        """We ourselves were away: the peer's silence means nothing."""
        self.last_received = now
        self.last_proof = now

    def silence(self, now: float) -> float:
        """Seconds for which the peer owes us a sign of life."""
        return now - self._heard()

    def _heard(self) -> float:
        if self.is_busy:
            return max(self.last_proof, self.partial_at, self._busy_since)
        return self.last_received

    def is_suspect(self, now: float) -> bool:
        """Whether it should get no new pushes."""
        return self.is_busy and self.silence(now) >= self._settings.suspect_after

    def is_dead(self, now: float) -> bool:
        """Whether it should be given up."""
        return self.silence(now) >= (self._settings.dead_after if self.is_busy else self._settings.dead_after_idle)

    def wants_ping(self, now: float) -> bool:
        """Whether it is time to ask."""
        return (self._pings or self.is_busy) and now >= self._ping_due()

    def next_deadline(self) -> float:
        """When to look again."""
        settings = self._settings
        heard = self._heard()
        if not self.is_busy:
            due = heard + settings.dead_after_idle
            return min(due, self._ping_due()) if self._pings else due
        due = heard + settings.dead_after
        if not self._pings:
            due = min(due, heard + settings.suspect_after)
        return min(due, self._ping_due())

    def _ping_due(self) -> float:
        settings = self._settings
        if not self.is_busy:
            return max(self.last_ping, min(self.last_sent, self.last_received)) + settings.ping_idle
        heard = self._heard()
        if not self._pings:
            return max(self.last_ping, heard) + settings.ping_busy
        quiet_since = max(self.last_ping, min(self.last_sent, heard))
        return min(quiet_since + settings.ping_busy, self.last_ping + settings.ping_at_least)
