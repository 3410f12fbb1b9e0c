"""The limits of one sender, route or tenant, and how much of them is in use: plain arithmetic, see limits.

Nothing reads a clock: `now` is seconds of any monotonic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloud_relay.places import Holding

if TYPE_CHECKING:
    from cloud_relay.fair_queue import Line

SLACK: Final = 1e-9
"""Seconds of rounding that a bucket forgives, so that n pushes exactly 1/n seconds apart all pass."""


class Gate:
    """The limits of one sender, route or tenant, and how much of them is in use.

    Each rate is a token bucket, kept as one number: the time at which the bucket will be full again (the generic cell
    rate algorithm, ITU-T I.371). A limit of 0 is none. A gate outlives reloads: its figures may change under pushes.
    Bytes are counted as they arrive, so their bucket may be overdrawn by bodies that are under way; the gate is shut
    until that is made up for.

    `line` is who waits before it (see fair_queue), None when nobody does. `lasting` of what is in flight are no pushes
    that end soon but connections that stay: TCP, WebSockets. `share` is how many others may be in flight for now, for
    the sake of other senders (see fair_share), 0 when that is no matter. A sender's `holding` is its tenant's, of all
    that the process may have in flight.
    """

    __slots__ = (
        "_byte_tolerance", "_bytes_full_at", "_configured", "_full_at", "_interval", "_limits", "_part", "_tolerance",
        "byte_cost", "holding", "in_flight", "lasting", "line", "max_in_flight", "share",
    )  # fmt: skip

    def __init__(self, max_in_flight: int = 0, rate: float = 0.0, burst: float = 0.0, part: float = 1.0) -> None:
        self.in_flight = self.lasting = self.share = self._configured = 0
        self._part = part
        self.line: Line | None = None
        self.holding = Holding()
        self._full_at = self._interval = self._tolerance = 0.0
        self._bytes_full_at = self.byte_cost = self._byte_tolerance = 0.0
        self._limits = (0, 0.0, 0.0, 0.0, 0.0)
        self.configure(max_in_flight, rate, burst)

    def configure(
        self, max_in_flight: int, rate: float, burst: float, byte_rate: float = 0.0, byte_burst: float = 0.0
    ) -> None:
        """Set the limits: pushes at once, pushes a second, and how many may come at once after a pause (at least 1);
        bytes a second, and how many of them after a pause.

        What is in flight stays counted. A rate or burst that differs starts with a full bucket.
        """
        limits = (max_in_flight, rate, burst, byte_rate, byte_burst)
        if limits[1:3] != self._limits[1:3]:
            self._full_at = 0.0  # a new bucket, and it is full
        if limits[3:] != self._limits[3:]:
            self._bytes_full_at = 0.0
        self._limits = limits
        self._scale()

    @property
    def is_limited(self) -> bool:
        """Whether any limit is configured."""
        return bool(self._configured or self._interval or self.byte_cost)

    def use_part(self, part: float) -> None:
        """Let in no more than this part of what is configured: other processes have the rest.

        Buckets stay as full as they are, in proportion. One push at a time is always let in.
        """
        self._part = part
        self._scale()

    @property
    def is_within(self) -> bool:
        """Whether no more is in flight than its part allows."""
        return not self._configured or self.in_flight <= self._configured

    def pressure(self, now: float) -> float:
        """How much of the limits is used up: from 0.0, nothing, to 1.0, all of it, or somebody waits."""
        if self.line is not None:
            return 1.0
        pressed = self.in_flight / self._configured if self._configured else 0.0
        if self._interval:
            pressed = max(pressed, (self._full_at - now) / max(self._tolerance, self._interval))
        if self.byte_cost:
            pressed = max(pressed, (self._bytes_full_at - now) / max(self._byte_tolerance, 1e-3))
        return min(1.0, pressed)

    def _scale(self) -> None:
        max_in_flight, rate, burst, byte_rate, byte_burst = self._limits
        part = self._part
        self._configured = max(1, int(max_in_flight * part + SLACK)) if max_in_flight else 0
        self.narrow(self.share)
        self._interval = 1.0 / (rate * part) if rate > 0.0 else 0.0
        self._tolerance = (max(burst * part, 1.0) - 1.0) * self._interval + SLACK
        self.byte_cost = 1.0 / (byte_rate * part) if byte_rate > 0.0 else 0.0
        self._byte_tolerance = byte_burst * part * self.byte_cost + SLACK

    def narrow(self, share: int) -> None:
        """Let no more than `share` passing pushes be in flight from now on, the configured limit aside; 0 for any."""
        self.share = share
        most, held = self._configured, share + self.lasting if share else 0
        self.max_in_flight = min(most, held) if most and held else most or held

    @property
    def is_held_back(self) -> bool:
        """Whether it is for others that no more pushes are let in, rather than by its own limits."""
        return self.share > 0 and self.in_flight >= self.max_in_flight and not 0 < self._configured <= self.in_flight

    def is_shut(self, now: float) -> bool:
        """Whether one more push is too much, or would overtake those that wait. Asking takes nothing."""
        if self.line is not None or (0 < self.max_in_flight <= self.in_flight):
            return True
        if self._interval and self._full_at - now > self._tolerance:
            return True
        return self.byte_cost > 0.0 and self._bytes_full_at - now > self._byte_tolerance

    def is_full(self, now: float) -> bool:
        """Whether one more push is too much, whoever waits."""
        return (0 < self.max_in_flight <= self.in_flight) or self.is_dry(now)

    def is_dry(self, now: float) -> bool:
        """Whether a bucket is empty: time alone fills it."""
        return self._full_at - now > self._tolerance or self._bytes_full_at - now > self._byte_tolerance

    def enter(self, now: float) -> None:
        """Count a push that was admitted: one more in flight, one token less."""
        self.in_flight += 1
        if self._interval:
            full_at = self._full_at
            self._full_at = (full_at if full_at > now else now) + self._interval

    def leave(self) -> None:
        """Count the end of a push that had entered."""
        self.in_flight -= 1

    def take_bytes(self, size: int, now: float) -> None:
        """Count bytes of a body that arrived."""
        full_at = self._bytes_full_at
        self._bytes_full_at = (full_at if full_at > now else now) + size * self.byte_cost

    def opens_in(self, now: float) -> float:
        """Seconds until both buckets let a push in again; 0.0 when they do, however many are in flight."""
        return max(0.0, self._full_at - self._tolerance - now, self._bytes_full_at - self._byte_tolerance - now)

    def owed(self, now: float) -> tuple[float, float]:
        """Seconds until its buckets are full: of pushes, and of bytes."""
        return max(0.0, self._full_at - now), max(0.0, self._bytes_full_at - now)

    def owe(self, pushes: float, size: float, now: float) -> None:
        """Have the buckets full no sooner than in so many seconds, as `owed` said elsewhere."""
        if self._interval:
            self._full_at = max(self._full_at, now + pushes)
        if self.byte_cost:
            self._bytes_full_at = max(self._bytes_full_at, now + size)

    def __repr__(self) -> str:
        return f"<Gate {self.in_flight} of {self.max_in_flight or 'any'} in flight>"
