"""The lines before shut gates, against a model of what fairness means, in virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.fair_queue import FairQueue, Ticket
from cloud_relay.limits import Gate, Limits
from cloud_relay.metrics import RelayMetrics, SenderMetrics
from cloud_relay.routing import Route
from cloud_relay.senders import Realm, Sender
from shared.errors import FAULTS
from tests.cloud_relay.ingress.fakes import Clock

ROOM = 12
METRICS = RelayMetrics(process=False).route("acme", "r")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(st.just("give up"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(1, 20)),
    ),
    max_size=120,
)
GATES = st.tuples(st.integers(0, 3), st.sampled_from([0.0, 5.0]))


class World:
    def __init__(self, senders: list[Gate], route: Gate, shared: Gate | None) -> None:
        self.clock = Clock()
        self.limits = Limits()
        self.queue = FairQueue(cast(Any, self.clock), self.limits, self.clock.time)
        self.senders = [Sender("acme", f"s{n}", gate, SenderMetrics("acme", "s")) for n, gate in enumerate(senders)]
        self.route = Route(
            tenant="acme", name="r", host=b"h", path=b"/", sub_paths=True, location="l", target="t",
            senders=frozenset(self.senders), realm=Realm("acme", []), gate=route, shared=shared,
            metrics=METRICS, quota_fault=FAULTS["quota-exceeded"], max_body=1,
            hold=3.0, timeout=30.0,
        )  # fmt: skip
        self.running: list[Sender] = []
        self.waiting: list[tuple[Sender, Ticket]] = []
        self.served: list[Sender] = []

    def push(self, sender: Sender) -> None:
        if self.limits.admit(sender, self.route, None, self.clock.now) is None:
            self.running.append(sender)
            return

        def on_turn() -> None:
            self.waiting = [one for one in self.waiting if one[1] is not ticket]
            self.running.append(sender)
            self.served.append(sender)

        ticket = self.queue.join(sender, self.route, on_turn, ROOM)
        if ticket is not None:
            self.waiting.append((sender, ticket))

    def end(self, number: int) -> None:
        if self.running:
            self.limits.release(self.running.pop(number % len(self.running)), self.route)
            self.clock.run()

    def check(self) -> None:
        assert self.queue.waiting == len(self.waiting) <= ROOM
        assert max(Counter(id(sender) for sender, _ in self.waiting).values(), default=0) <= ROOM // 2
        gates = [self.route.gate, *(sender.gate for sender in self.senders)]
        if self.route.shared is not None:
            gates.append(self.route.shared)
        for gate in gates:
            assert not gate.max_in_flight or gate.in_flight <= gate.max_in_flight
            assert (gate.line is None) == (not any(ticket.gate is gate for _, ticket in self.waiting))


@given(st.lists(GATES, min_size=4, max_size=4), GATES, st.none() | GATES, STEPS)
def test_nobody_is_lost_and_no_limit_is_passed(senders, route, shared, steps):
    def gate(figures: tuple[int, float]) -> Gate:
        return Gate(figures[0], figures[1], 2.0)

    world = World([gate(one) for one in senders], gate(route), None if shared is None else gate(shared))
    for what, number in steps:
        if what == "push":
            world.push(world.senders[number])
        elif what == "end":
            world.end(number)
        elif what == "give up" and world.waiting:
            _, ticket = world.waiting.pop(number % len(world.waiting))
            ticket.cancel()
            ticket.cancel()
        else:
            world.clock.sleep(number / 10)
        world.clock.run()
        world.check()
    for _ in range(1000):  # with time, and pushes that end, everybody gets a turn
        if not world.waiting and not world.running:
            break
        world.end(0)
        world.clock.sleep(0.25)
        world.check()
    assert (world.waiting, world.running, world.clock.armed) == ([], [], 0)
    assert world.limits.in_flight == 0


@given(st.integers(1, 5), st.integers(1, 5))
def test_turns_are_shared_evenly(ours, theirs):
    world = World([Gate(), Gate()], Gate(1), None)
    flood, quiet = world.senders
    world.push(flood)
    for _ in range(ours):
        world.push(flood)
    for _ in range(theirs):
        world.push(quiet)
    for _ in range(ours + theirs):
        world.end(0)
    shared = min(ours, theirs)
    first = Counter(sender.name for sender in world.served[: 2 * shared])
    assert first == {"s0": shared, "s1": shared}
