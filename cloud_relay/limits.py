"""How much may be under way: pushes in flight, pushes and bytes per second, of each sender, route and tenant.

How large one body may be is not judged here: the ingress counts it while it arrives and ends it at `route.max_body`.
All of it is plain arithmetic on the event loop's thread. Nothing reads a clock: `now` is seconds of any monotonic one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.places import Holding, Places
from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.fair_queue import Line
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


class Limited(Protocol):
    """A route, as far as limits go. `max_body` in bytes; `quota_fault` is the answer to what is over the quota."""

    @property
    def gate(self) -> Gate: ...
    @property
    def max_body(self) -> int: ...
    @property
    def quota_fault(self) -> Fault: ...
    @property
    def shared(self) -> Gate | None:
        """The tenant's, where it has limits."""


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
        self._configured = max(1, int(max_in_flight * part + _SLACK)) if max_in_flight else 0
        self.narrow(self.share)
        self._interval = 1.0 / (rate * part) if rate > 0.0 else 0.0
        self._tolerance = (max(burst * part, 1.0) - 1.0) * self._interval + _SLACK
        self.byte_cost = 1.0 / (byte_rate * part) if byte_rate > 0.0 else 0.0
        self._byte_tolerance = byte_burst * part * self.byte_cost + _SLACK

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


class Limits:
    """The process's limits: one object for all listeners, kept over reloads.

    `places` are those of pushes in flight in the whole process; when they run short, tenants have equal shares.
    Every `admit` that gave None is followed by exactly one `release` with the same sender and route.
    """

    __slots__ = ("_budget", "_gates", "_holdings", "_part", "on_room", "places")

    def __init__(
        self, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT, budget: MemoryBudget | None = None, part: float = 1.0
    ) -> None:
        """`part`: how much of each gate's limits this process may use at first, and of `max_in_flight` for good."""
        self._part = part
        self.places = Places(0)
        self._holdings: dict[str, Holding] = {}
        self.resize(max_in_flight, 1)
        self._budget = budget
        self.on_room: Callable[[Gate], object] = _nobody
        """Told of each gate that has a line when a push gives its place back."""
        self._gates: dict[tuple[str, str, str], Gate] = {}

    @property
    def in_flight(self) -> int:
        """Pushes in flight in this process."""
        return self.places.held

    def resize(self, max_in_flight: int, tenants: int) -> None:
        """So many pushes may be in flight, of all tenants together, in all processes."""
        self.places.resize(max(1, int(max_in_flight * self._part + _SLACK)) if max_in_flight else 0, tenants)

    def admit(self, sender: Sender, route: Limited, body_length: int | None, now: float) -> Fault | None:
        """Let a push in, or say why not. `body_length` is its Content-Length, None when it is chunked.

        Nothing is counted for a push that is refused: a sender that is over its quota does not use up a route's.
        """
        if body_length is not None and body_length > route.max_body:
            return _BODY_TOO_LARGE
        budget, places, of_sender = self._budget, self.places, sender.gate
        if budget is not None and budget.is_spent:
            return _OVERLOADED
        holding = of_sender.holding
        if places.held >= places.mark and not places.may_take(holding):
            return _OVERLOADED
        shared = route.shared
        if of_sender.is_shut(now) or route.gate.is_shut(now) or (shared is not None and shared.is_shut(now)):
            return route.quota_fault
        of_sender.enter(now)
        route.gate.enter(now)
        if shared is not None:
            shared.enter(now)
        if holding.held == 0:  # as Places.take does, without a call
            places.active += 1
        holding.held += 1
        places.held += 1
        return None

    def has_place_for(self, sender: Sender) -> bool:
        """Whether the process may have one more push of this sender's tenant in flight."""
        return self.places.may_take(sender.gate.holding)

    def enter(self, sender: Sender, route: Limited, now: float) -> None:
        """Count a push that is let in from a line, as `admit` does where there is none."""
        sender.gate.enter(now)
        route.gate.enter(now)
        if route.shared is not None:
            route.shared.enter(now)
        self.places.take(sender.gate.holding)

    def shut_gate(self, sender: Sender, route: Limited, now: float) -> Gate | None:
        """The first gate that keeps such a push out, or makes it wait behind others."""
        if sender.gate.is_shut(now):
            return sender.gate
        if route.gate.is_shut(now):
            return route.gate
        shared = route.shared
        return shared if shared is not None and shared.is_shut(now) else None

    def full_gate(self, sender: Sender, route: Limited, now: float) -> Gate | None:
        """The first gate that has no room for such a push, whoever waits."""
        if sender.gate.is_full(now):
            return sender.gate
        if route.gate.is_full(now):
            return route.gate
        shared = route.shared
        return shared if shared is not None and shared.is_full(now) else None

    def took(self, sender: Sender, route: Limited, size: int, now: float) -> None:
        """Count bytes of a push's body that arrived."""
        if sender.gate.byte_cost:
            sender.gate.take_bytes(size, now)
        if route.gate.byte_cost:
            route.gate.take_bytes(size, now)
        if route.shared is not None and route.shared.byte_cost:
            route.shared.take_bytes(size, now)

    def release(self, sender: Sender, route: Limited) -> None:
        """Count the end of a push, however it ended."""
        of_sender, of_route, shared = sender.gate, route.gate, route.shared
        of_sender.in_flight -= 1
        of_route.in_flight -= 1
        places, holding = self.places, of_sender.holding
        places.held -= 1
        holding.held -= 1
        if holding.held == 0:  # as Places.give_back does, without a call
            places.active -= 1
        if shared is not None:
            shared.in_flight -= 1
            if shared.line is not None:
                self.on_room(shared)
        if of_sender.line is not None:
            self.on_room(of_sender)
        if of_route.line is not None:
            self.on_room(of_route)

    def retry_after(self, sender: Sender, route: Limited, now: float) -> int:
        """Whole seconds for `Retry-After` after a quota fault: at least 1, at most LONGEST_RETRY_AFTER."""
        wait = max(sender.gate.opens_in(now), route.gate.opens_in(now))
        if route.shared is not None:
            wait = max(wait, route.shared.opens_in(now))
        return min(LONGEST_RETRY_AFTER, int(wait) + 1)

    def gate(
        self,
        tenant: str,
        kind: str,
        name: str,
        max_in_flight: int,
        rate: float,
        burst: float,
        byte_rate: float = 0.0,
        byte_burst: float = 0.0,
    ) -> Gate:
        """The gate of one sender, route or tenant, made once and then kept over reloads, with these limits from now
        on."""
        gate = self._gates.setdefault((tenant, kind, name), Gate(part=self._part))
        gate.holding = self._holding_of(tenant)
        gate.configure(max_in_flight, rate, burst, byte_rate, byte_burst)
        return gate

    def open_gate(self, tenant: str) -> Gate:
        """For pushes of nobody in particular: a gate without limits of its own."""
        gate = Gate()
        gate.holding = self._holding_of(tenant)
        return gate

    def _holding_of(self, tenant: str) -> Holding:
        holding = self._holdings.get(tenant)
        if holding is None:
            holding = self._holdings[tenant] = Holding()
        return holding

    def stays(self, sender: Sender) -> None:
        """A push that was admitted has become a connection that stays. Before its `release` comes `passes`."""
        sender.gate.lasting += 1
        sender.gate.narrow(sender.gate.share)

    def passes(self, sender: Sender) -> None:
        """A connection that stayed is over."""
        sender.gate.lasting -= 1
        sender.gate.narrow(sender.gate.share)

    def pressures(self, now: float) -> dict[tuple[str, str, str], float]:
        """How much of its limits each gate has used up that has any; see `Gate.pressure`."""
        return {key: gate.pressure(now) for key, gate in self._gates.items() if gate.is_limited}

    def use_part(self, key: tuple[str, str, str], part: float) -> None:
        """Let a gate, if there is one, use this part of its limits. Who waits may go on."""
        gate = self._gates.get(key)
        if gate is not None:
            gate.use_part(part)
            if gate.line is not None:
                self.on_room(gate)

    def is_within(self, key: tuple[str, str, str]) -> bool:
        """Whether no more is in flight than the gate's part allows."""
        gate = self._gates.get(key)
        return gate is None or gate.is_within

    def owed(self, now: float) -> list[tuple[str, str, str, float, float]]:
        """What the gates' buckets lack, for another process: (tenant, kind, name) and what `Gate.owed` gives."""
        found = [(*key, *gate.owed(now)) for key, gate in self._gates.items()]
        return [one for one in found if one[3] > 0.0 or one[4] > 0.0]

    def owe(self, owed: Iterable[tuple[str, str, str, float, float]], now: float) -> None:
        """Let buckets lack what they lacked in another process; of gates that there are."""
        for tenant, kind, name, pushes, size in owed:
            gate = self._gates.get((tenant, kind, name))
            if gate is not None:
                gate.owe(pushes, size, now)

    def keep_only(self, keys: set[tuple[str, str, str]]) -> None:
        """Forget the gates of senders and routes that the config no longer names; what is in flight keeps its own."""
        for key in self._gates.keys() - keys:
            del self._gates[key]
        left = {tenant for tenant, _, _ in keys}
        self._holdings = {name: one for name, one in self._holdings.items() if one.held or name in left}

    def __repr__(self) -> str:
        return f"<Limits {self.in_flight} of {self.places.limit} in flight, {len(self._gates)} gates>"


def _nobody(_gate: Gate) -> None:
    """Nobody waits anywhere."""
