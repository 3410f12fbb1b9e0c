"""Pushes that came at once and have to wait their turn: a bounded line before each gate, fair from sender to sender.

Cloud services let go at the full minute. What is over a quota for a moment waits here rather than being refused; what
is over it for longer is refused as before. Before each gate that is shut there is one line, in which every *sender* has
one place, however many of its pushes wait there: so one that floods waits behind itself. A push that finds no line and
no shut gate never comes here.

A push waits before the first gate that is shut for it. When that opens and another one is shut, it goes on to the line
there. Its turn comes from the event loop, never from within the end of another push.

Nobody can take all places: a sender may hold no more than are still free, a tenant no more than three times as many.
So however many fill what they may, there is room for one more (Choudhury and Hahne's dynamic thresholds, of switches
whose ports share one memory).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from cloud_relay.gates import Gate
    from cloud_relay.limits import Limits
    from cloud_relay.routing import Route
    from cloud_relay.senders import Sender

Key = TypeVar("Key")

OF_TENANT: Final = 3
"""Places that a tenant may hold for each that is free: a tenant alone may have three quarters of all."""

AT_ONCE: Final = 64
"""Pushes that are let in at one gate in one turn of the loop, so that it gets to everything else between."""

FULL_FOR: Final = 0.02
"""Seconds after which it is looked again whether the process has a place for a tenant that may have no more for now."""

_SOON: Final = 0.001
"""Seconds. A bucket that is empty but for a rounding is not asked again at once."""


class Handle(Protocol):
    """What can be cancelled."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[[], object]) -> Handle: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Handle: ...


class Ticket:
    """One push that waits. `cancel` gives its place up."""

    __slots__ = ("_queue", "gate", "on_turn", "route", "sender")

    def __init__(self, queue: FairQueue, sender: Sender, route: Route, on_turn: Callable[[], None]) -> None:
        self._queue = queue
        self.sender = sender
        self.route = route
        self.on_turn = on_turn
        self.gate: Gate | None = None

    def cancel(self) -> None:
        """Wait no longer; after the turn has come this does nothing."""
        self._queue.forget(self)


class Line:
    """Who waits before one gate: senders in turn, each with its pushes in their order."""

    __slots__ = ("senders", "timer")

    def __init__(self) -> None:
        self.senders: OrderedDict[Gate, deque[Ticket]] = OrderedDict()
        self.timer: Handle | None = None

    def add(self, ticket: Ticket) -> None:
        """At the end of the sender's own pushes; a sender that is new here comes last."""
        self.senders.setdefault(ticket.sender.gate, deque()).append(ticket)

    @property
    def first(self) -> Ticket:
        """The push whose turn it is."""
        return next(iter(self.senders.values()))[0]

    def next(self) -> Ticket:
        """Take the first push of the sender whose turn it is; the sender then comes last."""
        sender, waiting = next(iter(self.senders.items()))
        ticket = waiting.popleft()
        if waiting:
            self.senders.move_to_end(sender)
        else:
            del self.senders[sender]
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out one that gave up."""
        waiting = self.senders[ticket.sender.gate]
        waiting.remove(ticket)
        if not waiting:
            del self.senders[ticket.sender.gate]


class FairQueue:
    """All lines of one process. `limits` say which gate is shut, and count who gets in."""

    def __init__(self, loop: Loop, limits: Limits, time: Callable[[], float]) -> None:
        self._loop = loop
        self._limits = limits
        self._time = time
        self._lines: dict[Gate, Line] = {}
        self._of_sender: Counter[Gate] = Counter()
        self._of_tenant: Counter[str] = Counter()
        self._open: dict[Gate, None] = {}  # in the order in which they had room
        self.waiting = 0
        self.queued = 0
        self.refused = 0
        limits.on_room = self.has_room

    def join(self, sender: Sender, route: Route, on_turn: Callable[[], None], room: int) -> Ticket | None:
        """Wait for a turn: `on_turn` is called once, when the push has been counted as admitted.

        None when there is no place for it among `room`, or when its sender or tenant has its part of them.
        """
        free = room - self.waiting
        if self._of_sender[sender.gate] >= free or self._of_tenant[sender.tenant] >= OF_TENANT * free:
            self.refused += 1
            return None
        ticket = Ticket(self, sender, route, on_turn)
        self._of_sender[sender.gate] += 1
        self._of_tenant[sender.tenant] += 1
        self.waiting += 1
        self.queued += 1
        now = self._time()
        self._stand(ticket, self._limits.shut_gate(sender, route, now) or sender.gate, now)
        return ticket

    def waiting_of(self, gate: Gate) -> int:
        """How many pushes of the sender with this gate wait, wherever they do."""
        return self._of_sender[gate]

    def forget(self, ticket: Ticket) -> None:
        """A push gave up, or its connection is gone."""
        gate = ticket.gate
        if gate is not None:
            self._lines[gate].remove(ticket)
            self._step_out(ticket)
            self._close_if_empty(gate)

    def has_room(self, gate: Gate) -> None:
        """A push that held this gate ended: serve its line soon."""
        if not self._open:
            self._loop.call_soon(self._serve_open)
        self._open[gate] = None

    def recheck(self) -> None:
        """The limits may be others: look at every line soon."""
        for gate in self._lines:
            self.has_room(gate)

    def _serve_open(self) -> None:
        gates, self._open = self._open, {}
        for gate in gates:
            self._serve(gate)

    def _serve(self, gate: Gate) -> None:
        """Let in whom the gate has room for, sender by sender; of many, those beyond a part in the next turn."""
        line = self._lines.get(gate)
        if line is None:
            return
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        now = self._time()
        let_in = 0
        while line.senders and not gate.is_full(now):
            if let_in == AT_ONCE:
                self.has_room(gate)
                return
            if not self._limits.has_place_for(line.first.sender):  # all that wait at a gate are of one tenant
                line.timer = self._loop.call_at(now + FULL_FOR, self._on_time, gate)
                return
            ticket = line.next()
            other = self._limits.full_gate(ticket.sender, ticket.route, now)
            if other is None:
                let_in += 1
                self._step_out(ticket)
                self._limits.enter(ticket.sender, ticket.route, now)
                ticket.on_turn()
            else:
                self._stand(ticket, other, now)
        if line.senders:
            self._arm(gate, line, now)
        self._close_if_empty(gate)

    def _stand(self, ticket: Ticket, gate: Gate, now: float) -> None:
        line = gate.line
        if line is None:
            line = gate.line = self._lines[gate] = Line()
        ticket.gate = gate
        line.add(ticket)
        self._arm(gate, line, now)

    def _arm(self, gate: Gate, line: Line, now: float) -> None:
        """A rate opens by time alone; a place in flight when somebody gives it back."""
        if gate.is_dry(now):
            if line.timer is None:
                line.timer = self._loop.call_at(now + max(gate.opens_in(now), _SOON), self._on_time, gate)
        elif not gate.is_full(now):
            self.has_room(gate)

    def _on_time(self, gate: Gate) -> None:
        line = self._lines.get(gate)
        if line is not None:
            line.timer = None
            self._serve(gate)

    def _step_out(self, ticket: Ticket) -> None:
        ticket.gate = None
        self.waiting -= 1
        _count_out(self._of_sender, ticket.sender.gate)
        _count_out(self._of_tenant, ticket.sender.tenant)

    def _close_if_empty(self, gate: Gate) -> None:
        line = self._lines.get(gate)
        if line is not None and not line.senders:
            if line.timer is not None:
                line.timer.cancel()
            gate.line = None
            del self._lines[gate]

    def __repr__(self) -> str:
        return f"<FairQueue {self.waiting} waiting in {len(self._lines)} lines>"


def _count_out(counts: Counter[Key], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
