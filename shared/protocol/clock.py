"""The relay's clock as the connector sees it.

Deadlines travel on the relay's monotonic clock. A PING and its PONG give the difference of the two, good to half a
round trip; the sample with the shortest round trip of late is the best one (NTP's clock filter, RFC 5905 §10, in its
simplest form).
"""

from __future__ import annotations


class PeerClock:
    """Turns the peer's microseconds into our monotonic seconds."""

    __slots__ = ("_age", "_offset", "last_round_trip", "round_trip", "sampled_at")

    MAX_AGE = 60.0
    """A sample older than this is replaced by any newer one: clocks drift."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._age = float("-inf")
        self.round_trip = float("inf")
        self.last_round_trip = float("inf")
        """Of the sample that came last, at `sampled_at`: what the peer and we ourselves are slow by now is in it."""
        self.sampled_at = float("-inf")

    def __repr__(self) -> str:
        return f"<PeerClock offset={self._offset:+.6f} round_trip={self.round_trip:.6f}>"

    def on_hello(self, clock: int, now: float) -> None:
        """A first guess: late by the way that HELLO took."""
        self._offset = clock / 1e6 - now

    def on_pong(self, sent: float, clock: int, now: float) -> None:
        """One sample: a PING of `sent` was answered at the peer's `clock` and has come back."""
        round_trip = self.last_round_trip = max(now - sent, 0.0)
        self.sampled_at = now
        if round_trip <= self.round_trip * 1.5 or now - self._age > self.MAX_AGE:
            self._offset = clock / 1e6 - (sent + now) / 2
            self._age = now
            self.round_trip = round_trip

    def forget(self) -> None:
        """Let the next sample count, however long its round trip."""
        self._age = float("-inf")

    def to_local(self, clock: int) -> float:
        """Our monotonic seconds at the peer's `clock`."""
        return clock / 1e6 - self._offset
