"""Two kinds of credit.

A *stream's* credit comes back when its reader has consumed: it bounds what one slow target can make us hold.
The *tunnel's* comes back when bytes reach the stream's buffer: it bounds what is in flight on the path, so that a small
push never queues behind more than the path needs to be full, and so that stalled readers cannot use it up.
"""

from __future__ import annotations

from shared.protocol.settings import Settings


class ReceiveWindow:
    """What a peer may still send on one stream. Grows with a reader that keeps up, never on arrival."""

    __slots__ = ("_consumed", "_epoch", "_left", "_limit", "_size")

    def __init__(self, size: int, limit: int, now: float) -> None:
        self._size = size
        self._limit = limit
        self._left = size
        self._consumed = 0
        self._epoch = now

    def __repr__(self) -> str:
        return f"<ReceiveWindow {self._left} of {self._size} left, {self._consumed} to give back>"

    def on_received(self, n: int) -> bool:
        """Count `n` bytes; False when the peer had no credit for them."""
        self._left -= n
        return self._left >= 0

    def on_consumed(self, n: int, now: float, round_trip: float) -> int:
        """Count `n` bytes as read; the credit to give back now, mostly 0.

        It is given back by quarters of the window, so that it costs a frame in a while. A window that was read within
        two round trips is too small for its path, and doubles.
        """
        self._consumed += n
        if self._consumed < self._size >> 2:
            return 0
        credit, self._consumed = self._consumed, 0
        if now - self._epoch < round_trip / 2 and self._size < self._limit:
            grown = min(self._size * 2, self._limit)
            credit += grown - self._size
            self._size = grown
        self._epoch = now
        self._left += credit
        return credit


class TunnelWindow:
    """How much may be in flight to the peer: the path's round trip times the rate at which the peer takes it.

    One sample at a time is under way: from some byte's sending to its credit's return. Of the last ten seconds or so
    the shortest round trip and the best rate count. A multiple of their product fills the path and finds out when it
    has become wider.
    """

    __slots__ = (
        "_best",
        "_bound",
        "_credited",
        "_min_round_trip",
        "_old_best",
        "_old_min_round_trip",
        "_reserve",
        "_rotate_at",
        "_sample_at",
        "_sample_credited",
        "_sample_mark",
        "_sent",
        "_smallest",
        "credited_at", "window",
    )  # fmt: skip

    PERIOD = 5.0

    def __init__(self, settings: Settings, bound: int, now: float) -> None:
        self._smallest = settings.tunnel_window_min
        self._bound = max(bound, self._smallest)
        self._reserve = settings.bulk_reserve
        self.window = self._smallest
        self.credited_at = now
        self._sent = 0
        self._credited = 0
        self._best = 0.0
        self._old_best = 0.0
        self._min_round_trip = self._old_min_round_trip = float("inf")
        self._rotate_at = now + self.PERIOD
        self._sample_at = -1.0
        self._sample_mark = 0
        self._sample_credited = 0

    def __repr__(self) -> str:
        return f"<TunnelWindow {self.in_flight} of {self.window} in flight>"

    @property
    def in_flight(self) -> int:
        """Bytes sent whose credit has not come back."""
        return self._sent - self._credited

    @property
    def round_trip(self) -> float:
        """The shortest round trip of the last samples, seconds; infinite before the first."""
        return min(self._min_round_trip, self._old_min_round_trip)

    def room(self, *, is_bulk: bool) -> int:
        """Bytes that may be sent now; bulk leaves the reserve alone."""
        return self.window - self._sent + self._credited - (self._reserve if is_bulk else 0)

    def on_sent(self, n: int, now: float) -> None:
        """Count `n` bytes as in flight."""
        self._sent += n
        if self._sample_at < 0:
            self._sample_at = now
            self._sample_mark = self._sent
            self._sample_credited = self._credited

    def on_credit(self, n: int, now: float) -> bool:
        """Count `n` bytes as arrived; False when the peer gives back more than was sent."""
        self._credited += n
        self.credited_at = now
        if self._credited > self._sent:
            return False
        if self._sample_at >= 0 and self._credited >= self._sample_mark:
            self._take_sample(now)
        return True

    def _take_sample(self, now: float) -> None:
        elapsed = max(now - self._sample_at, 1e-6)
        rate = (self._credited - self._sample_credited) / elapsed
        self._sample_at = -1.0
        if now >= self._rotate_at:
            self._rotate_at = now + self.PERIOD
            self._old_best, self._best = self._best, 0.0
            self._old_min_round_trip, self._min_round_trip = self._min_round_trip, float("inf")
        self._best = max(self._best, rate)
        self._min_round_trip = min(self._min_round_trip, elapsed)
        # A round trip like the shortest one: nothing queues on the path, so there may be room for much more.
        gain = 4 if elapsed <= 1.25 * self.round_trip else 2
        wanted = gain * max(self._best, self._old_best) * self.round_trip + self._reserve
        self.window = int(min(max(wanted, self._smallest), self._bound))
