"""The lines before shut gates, against a model of what fairness means, in virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.fair_queue import AT_ONCE, FULL_FOR, FairQueue, Ticket
from cloud_relay.gates import Gate
from cloud_relay.limits import Limits
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


@given(st.integers(1, 4), st.integers(1, 4))
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


def test_a_tenant_that_fills_the_lines_leaves_places_to_others():
    room = 8192
    world = World([Gate(1) for _ in range(6)], Gate(), None)
    flooding, other = world.senders[:5], world.senders[5]
    other.tenant = "globex"
    held: Counter[str] = Counter()
    for number in range(5 * room):
        sender = flooding[number % 5]
        if world.queue.join(sender, world.route, lambda: None, room):
            held[sender.name] += 1
    assert max(held.values()) - min(held.values()) <= 1
    assert sum(held.values()) == world.queue.waiting <= 3 * room // 4
    taken = sum(world.queue.join(other, world.route, lambda: None, room) is not None for _ in range(room))
    assert taken >= room // 8


def test_a_sender_alone_may_have_half_of_the_places():
    world = World([Gate(1)], Gate(), None)
    (sender,) = world.senders
    assert sum(world.queue.join(sender, world.route, lambda: None, 100) is not None for _ in range(100)) == 50
    assert world.queue.refused == 50


def test_many_are_let_in_over_several_turns_of_the_loop():
    world = World([Gate(1), Gate()], Gate(), None)
    flood, quiet = world.senders
    world.push(flood)
    served: list[Sender] = []
    for _ in range(4 * AT_ONCE):
        assert world.queue.join(flood, world.route, lambda: served.append(flood), 100 * AT_ONCE)
    flood.gate.configure(0, 0.0, 0.0)
    world.queue.recheck()
    most = 0
    while len(served) < 4 * AT_ONCE:
        before = len(served)
        world.clock.turn()
        assert len(served) > before
        most = max(most, len(served) - before)
    assert most == AT_ONCE
    assert world.queue.waiting == 0
    assert flood.gate.line is None
    assert world.limits.admit(quiet, world.route, None, world.clock.now) is None


def test_a_line_waits_while_the_process_has_no_place_for_its_tenant():
    world = World([Gate(1)], Gate(), None)
    sender = world.senders[0]
    world.push(sender)
    world.push(sender)
    world.limits.resize(0, 1)
    world.end(0)  # its own gate is open, but that is all
    world.clock.sleep(1.0)
    assert (len(world.waiting), len(world.running)) == (1, 0)
    world.limits.resize(1, 1)
    world.clock.sleep(2 * FULL_FOR)
    assert (len(world.waiting), len(world.running)) == (0, 1)
