"""How much may be under way: pushes in flight and pushes per second, of each sender, of each route, and in total.

Bytes are not counted here: the ingress counts a body while it arrives and ends it at `route.max_body`.
All of it is plain arithmetic on the event loop's thread. Nothing reads a clock: `now` is seconds of any monotonic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.routing import Route
    from cloud_relay.senders import Sender
    from shared.protocol.budget import MemoryBudget

DEFAULT_MAX_IN_FLIGHT: Final = 16384
"""Pushes in flight in the whole process: four times the 4,000 that cloud services let go at the full minute."""

LONGEST_RETRY_AFTER: Final = 30
"""Seconds. What senders are told at most: some of them make every error's pause longer by themselves."""

_SLACK: Final = 1e-9
"""Seconds of rounding that a bucket forgives, so that n pushes exactly 1/n seconds apart all pass."""

_BODY_TOO_LARGE: Final = FAULTS["body-too-large"]
_OVERLOADED: Final = FAULTS["overloaded"]


class Gate:
    """The limits of one sender or one route, and how much of them is in use.

    The rate is a token bucket, kept as one number: the time at which the bucket will be full again (the generic cell
    rate algorithm, ITU-T I.371). A limit of 0 is none. A gate outlives reloads: its figures may change under pushes.
    """

    __slots__ = ("_full_at", "_interval", "_tolerance", "in_flight", "max_in_flight")

    def __init__(self, max_in_flight: int = 0, rate: float = 0.0, burst: float = 0.0) -> None:
        self.in_flight = 0
        self._full_at = self._interval = self._tolerance = 0.0
        self.configure(max_in_flight, rate, burst)

    def configure(self, max_in_flight: int, rate: float, burst: float) -> None:
        """Set the limits: pushes at once, pushes a second, and how many may come at once after a pause (at least 1).

        What is in flight stays counted. A rate or burst that differs starts with a full bucket.
        """
        self.max_in_flight = max_in_flight
        interval = 1.0 / rate if rate > 0.0 else 0.0
        tolerance = (max(burst, 1.0) - 1.0) * interval + _SLACK
        if (interval, tolerance) != (self._interval, self._tolerance):
            self._full_at = 0.0  # a new bucket, and it is full
            self._interval, self._tolerance = interval, tolerance

    def is_shut(self, now: float) -> bool:
        """Whether one more push is too much. Asking takes nothing from the bucket."""
        if self.max_in_flight and self.in_flight >= self.max_in_flight:
            return True
        return self._full_at - now > self._tolerance

    def enter(self, now: float) -> None:
        """Count a push that was admitted: one more in flight, one token less."""
        self.in_flight += 1
        if self._interval:
            full_at = self._full_at
            self._full_at = (full_at if full_at > now else now) + self._interval

    def leave(self) -> None:
        """Count the end of a push that had entered."""
        self.in_flight -= 1

    def opens_in(self, now: float) -> float:
        """Seconds until the bucket holds a token again; 0.0 when it does, however many are in flight."""
        return max(0.0, self._full_at - self._tolerance - now)

    def __repr__(self) -> str:
        return f"<Gate {self.in_flight} of {self.max_in_flight or 'any'} in flight>"


class Limits:
    """The process's limits: one object for all listeners, kept over reloads.

    Every `admit` that gave None is followed by exactly one `release` with the same sender and route.
    """

    __slots__ = ("_budget", "_gates", "in_flight", "max_in_flight")

    def __init__(self, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT, budget: MemoryBudget | None = None) -> None:
        self.in_flight = 0
        self.max_in_flight = max_in_flight
        self._budget = budget
        self._gates: dict[tuple[str, str, str], Gate] = {}

    def admit(self, sender: Sender, route: Route, body_length: int | None, now: float) -> Fault | None:
        """Let a push in, or say why not. `body_length` is its Content-Length, None when it is chunked.

        Nothing is counted for a push that is refused: a sender that is over its quota does not use up a route's.
        """
        if body_length is not None and body_length > route.max_body:
            return _BODY_TOO_LARGE
        budget = self._budget
        if self.in_flight >= self.max_in_flight or (budget is not None and budget.is_spent):
            return _OVERLOADED
        of_sender, of_route = sender.gate, route.gate
        if of_sender.is_shut(now) or of_route.is_shut(now):
            return route.quota_fault
        of_sender.enter(now)
        of_route.enter(now)
        self.in_flight += 1
        return None

    def release(self, sender: Sender, route: Route) -> None:
        """Count the end of a push, however it ended."""
        sender.gate.leave()
        route.gate.leave()
        self.in_flight -= 1

    def retry_after(self, sender: Sender, route: Route, now: float) -> int:
        """Whole seconds for `Retry-After` after a quota fault: at least 1, at most LONGEST_RETRY_AFTER."""
        wait = max(sender.gate.opens_in(now), route.gate.opens_in(now))
        return min(LONGEST_RETRY_AFTER, int(wait) + 1)

    def gate(self, tenant: str, kind: str, name: str, max_in_flight: int, rate: float, burst: float) -> Gate:
        """The gate of one sender or route, made once and then kept over reloads, with these limits from now on."""
        key = (tenant, kind, name)
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(max_in_flight, rate, burst)
        else:
            gate.configure(max_in_flight, rate, burst)
        return gate

    def keep_only(self, keys: set[tuple[str, str, str]]) -> None:
        """Forget the gates of senders and routes that the config no longer names; what is in flight keeps its own."""
        for key in self._gates.keys() - keys:
            del self._gates[key]

    def __repr__(self) -> str:
        return f"<Limits {self.in_flight} of {self.max_in_flight} in flight, {len(self._gates)} gates>"
