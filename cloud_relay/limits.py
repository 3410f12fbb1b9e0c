"""How much may be under way: pushes in flight, pushes and bytes per second, of each sender, route and tenant.

How large one body may be is not judged here: the ingress counts it while it arrives and ends it at `route.max_body`.
All of it is plain arithmetic on the event loop's thread. Nothing reads a clock: `now` is seconds of any monotonic one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.gates import SLACK, Gate
from cloud_relay.places import Holding, Places
from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.senders import Sender
    from shared.protocol.budget import MemoryBudget

DEFAULT_MAX_IN_FLIGHT: Final = 16384
"""Pushes in flight in the whole process: four times the 4,000 that cloud services let go at the full minute."""

LONGEST_RETRY_AFTER: Final = 30
"""Seconds. What senders are told at most: some of them make every error's pause longer by themselves."""

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
        self.places.resize(max(1, int(max_in_flight * self._part + SLACK)) if max_in_flight else 0, tenants)

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
