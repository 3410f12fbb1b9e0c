"""Who floods is held back for others and for nobody else, in virtual time, against a model of what piles up."""

from __future__ import annotations

import itertools
import statistics
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.fair_queue import FairQueue
from cloud_relay.fair_share import ACTIVE_FOR, CROWD, FLOOR, LEAST, STEP, FairShare, _Activity, level_of
from cloud_relay.gates import Gate
from cloud_relay.late_pings import PINGED, LatePings, Link, Place
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics, SenderMetrics
from cloud_relay.routing import Route
from cloud_relay.senders import Realm, Sender
from shared.errors import FAULTS
from tests.cloud_relay.ingress.fakes import Clock

TICK = 0.001
EVERY = 5
"""Ticks between two pushes of a steady sender."""
ROOM = 8192


class FakeLink:
    """A tunnel whose pings take what `world` says."""

    def __init__(self, world: World, late: float = 0.0) -> None:
        """`late`: seconds for which its connector, or the line to it, keeps every answer."""
        self.world = world
        self.late = late
        self.last_ping = (0.001, 0.0)
        self.pings = 0
        self.is_silent = False

    @property
    def in_flight(self) -> int:
        return self.world.limits.in_flight

    def ping(self) -> None:
        self.pings += 1
        if self.is_silent:
            return
        took = self.world.ping_takes() + self.late
        self.world.clock.call_at(self.world.clock.now + took, self._on_pong, took)

    def _on_pong(self, took: float) -> None:
        self.last_ping = (took, self.world.clock.now)


class QuietLink(FakeLink):
    """A tunnel that carries nothing."""

    @property
    def in_flight(self) -> int:
        return 0


class World:
    """Pushes go through a pipeline of `capacity` a second, and then to a target that takes `target` seconds."""

    def __init__(self, senders: int = 2, capacity: float = 5000.0, target: float = 0.0, limit: int = 0) -> None:
        self.clock = Clock()
        self.capacity = capacity
        self.target = target
        self.limits = Limits()
        self.queue = FairQueue(cast(Any, self.clock), self.limits, self.clock.time)
        self.link = FakeLink(self)
        self.links: list[tuple[Place, Link]] = [(("acme", "walldorf"), self.link)]
        self.senders = [Sender("acme", f"s{n}", Gate(limit), SenderMetrics("acme", f"s{n}")) for n in range(senders)]
        self.is_on = True
        self.share = FairShare(
            cast(Any, self.clock), self.limits, self.queue,
            lambda: self.senders, lambda: self.links, lambda: self.is_on,
        )  # fmt: skip
        self.route = Route(
            tenant="acme", name="r", host=b"h", path=b"/", sub_paths=True, location="l", target="t",
            senders=frozenset(self.senders), realm=Realm("acme", []), gate=Gate(),
            metrics=RelayMetrics(process=False).route("acme", "r"), quota_fault=FAULTS["quota-exceeded"], max_body=1,
            hold=3.0, timeout=30.0,
        )  # fmt: skip
        self.pipeline: list[tuple[Sender, float]] = []
        self.at_target: list[tuple[float, Sender, float]] = []
        self.latencies: dict[Sender, list[float]] = {sender: [] for sender in self.senders}
        self.closed_loop: dict[Sender, int] = {}
        self.refused = 0
        self._credit = 0.0
        self.share.start()

    def ping_takes(self) -> float:
        return 0.001 + len(self.pipeline) / self.capacity

    def push(self, sender: Sender) -> None:
        began = self.clock.now
        if self.limits.admit(sender, self.route, None, began) is None:
            self.pipeline.append((sender, began))
        elif not self.queue.join(sender, self.route, lambda: self.pipeline.append((sender, began)), ROOM):
            self.refused += 1

    def run(self, seconds: float, *, steady: Sender | None = None) -> None:
        """`steady` pushes all the time."""
        for number in range(round(seconds / TICK)):
            if steady is not None and number % EVERY == 0:
                self.push(steady)
            self.clock.sleep(TICK)
            self._credit = min(self._credit + TICK * self.capacity, self.capacity / 10)
            while self._credit >= 1 and self.pipeline:
                self._credit -= 1
                sender, began = self.pipeline.pop(0)
                self.at_target.append((self.clock.now + self.target, sender, began))
            while self.at_target and self.at_target[0][0] <= self.clock.now:
                _, sender, began = self.at_target.pop(0)
                self.limits.release(sender, self.route)
                sender.metrics.pushes += 1
                self.latencies[sender].append(self.clock.now - began)
                if self.closed_loop.get(sender):
                    self.push(sender)
            self.clock.run()

    def flood(self, sender: Sender, connections: int) -> None:
        """From now on each push of this sender is followed by another one."""
        self.closed_loop[sender] = connections
        for _ in range(connections):
            self.push(sender)

    def worst(self, sender: Sender, last: int) -> float:
        return max(self.latencies[sender][-last:])


def test_a_flood_waits_behind_itself_and_loses_no_throughput():
    world = World()
    flood, light = world.senders
    world.run(1.0, steady=light)
    alone = world.worst(light, 100)
    world.flood(flood, 512)
    world.run(2.0, steady=light)
    assert world.share.narrowed == 1
    assert flood.gate.in_flight <= 4 * CROWD
    assert world.worst(light, 150) <= 2 * alone + 0.005
    before = len(world.latencies[flood])
    world.run(1.0, steady=light)
    assert len(world.latencies[flood]) - before > 0.9 * world.capacity
    assert world.refused == 0


def test_a_flood_is_noticed_within_a_few_hundredths_of_a_second():
    world = World(capacity=3000.0)
    flood, light = world.senders
    world.run(2.0, steady=light)
    world.flood(flood, 256)  # 85 ms of work
    before = len(world.latencies[light])
    world.run(0.5, steady=light)
    assert statistics.median(world.latencies[light][before:]) < 0.01
    world.run(10.0, steady=light)
    assert world.worst(light, 1900) <= 0.004, "nor does it come back from time to time"


@pytest.mark.parametrize("capacity", [3000.0, 8000.0])
def test_the_window_stays_near_the_size_at_which_pings_are_not_late(capacity: float):
    world = World(capacity=capacity)
    flood, light = world.senders
    world.run(1.0, steady=light)
    world.flood(flood, 256)
    world.run(1.0, steady=light)
    seen: list[float] = []
    for _ in range(200):
        world.run(STEP, steady=light)
        seen.append(world.share.window)
    assert min(seen) >= FLOOR
    assert max(seen) <= 3 * CROWD


def test_without_it_the_others_wait_behind_the_flood():
    """The model shows the trouble: else the test above would prove nothing."""
    world = World()
    world.is_on = False
    flood, light = world.senders
    world.run(1.0, steady=light)
    world.flood(flood, 512)
    world.run(2.0, steady=light)
    assert world.share.narrowed == 0
    assert world.worst(light, 150) > 0.09


def test_alone_nobody_is_held_back():
    world = World()
    world.flood(world.senders[0], 4000)
    world.run(3.0)
    assert world.queue.queued == 0
    assert world.link.pings == 0


def test_one_that_floods_alone_here_is_held_back_for_those_at_other_workers():
    world = World()
    told: list[list[tuple[str, str]]] = []
    world.share.on_active = told.append
    flood, _ = world.senders
    world.share.elsewhere = lambda: {("acme", "s0")}  # the same sender, by other connections
    world.flood(flood, 256)
    world.run(1.0)
    assert world.share.narrowed == 0
    assert told == [[("acme", "s0")]]
    world.share.elsewhere = lambda: {("acme", "s0"), ("acme", "another")}
    world.run(1.0)
    assert world.share.narrowed == 1
    assert flood.gate.in_flight <= CROWD
    world.share.elsewhere = set
    world.run(1.0)
    assert world.share.narrowed == 0
    world.closed_loop.clear()
    world.run(ACTIVE_FOR + 2.0)
    assert told[-1] == []


def test_those_who_flood_alike_are_left_alone():
    """For whose sake? Each only waits for the others, as it would in a line."""
    world = World(senders=4)
    for sender in world.senders:
        world.flood(sender, 200)
    world.run(2.0)
    assert world.share.narrowed == 0


@pytest.mark.parametrize("target", [0.1, 0.5])
def test_a_slow_target_is_no_reason(target: float):
    world = World(target=target)
    busy, light = world.senders
    world.run(1.0, steady=light)
    world.closed_loop[busy] = 1
    for _ in range(300):  # not all at once: nothing piles up
        world.push(busy)
        world.run(EVERY * TICK, steady=light)
    world.run(2.0, steady=light)
    assert busy.gate.in_flight == 300
    assert world.share.narrowed == 0


def test_a_burst_to_a_slow_target_is_soon_there():
    world = World(target=0.25)
    busy, light = world.senders
    world.run(1.0, steady=light)
    world.flood(busy, 1000)
    world.run(6.0, steady=light)
    assert world.worst(busy, 1000) < 0.3
    assert world.refused == 0


def test_a_burst_beside_others_is_delivered_whole():
    world = World()
    burst, light = world.senders
    world.run(1.0, steady=light)
    for _ in range(4000):
        world.push(burst)
    world.run(2.0, steady=light)
    assert len(world.latencies[burst]) == 4000
    assert world.refused == 0
    world.run(1.0, steady=light)
    assert world.share.narrowed == 0
    assert burst.gate.share == 0


def test_a_connector_that_is_away_is_no_pile():
    """Its pushes are another matter; those of others must not pay for it."""
    world = World(target=0.05)
    busy, light = world.senders
    world.run(1.0, steady=light)
    world.flood(busy, 100)
    world.run(1.0, steady=light)
    world.link.is_silent = True
    world.run(3.0, steady=light)
    assert world.share.narrowed == 0
    assert busy.gate.in_flight == 100


@pytest.mark.parametrize("lines", [1, PINGED + 1])
def test_late_pings_of_one_tenant_hold_back_no_other(lines: int):
    """Whether its line is full or its connector means harm: what is late there alone does not pile up here."""
    world = World(senders=3, target=0.1)
    busy, light, stranger = world.senders
    stranger.tenant = "globex"
    world.links.extend((("globex", "berlin"), FakeLink(world, late=0.4)) for _ in range(lines))
    for sender, connections in ((light, 2), (stranger, 50), (busy, 200)):
        world.flood(sender, connections)
    world.run(3.0)
    assert busy.gate.share == light.gate.share == 0
    assert busy.gate.in_flight == 200


@pytest.mark.parametrize("location", ["berlin", "walldorf"])
def test_late_pings_of_one_location_hold_back_nobody_at_another(location: str):
    world = World(senders=3, target=0.1)
    busy, light, other = world.senders
    for sender in (busy, light):
        sender.locations.add("walldorf")
    other.locations.add("berlin")
    world.links.append((("acme", location), FakeLink(world, late=0.4)))
    for sender, connections in ((light, 2), (other, 2), (busy, 200)):
        world.flood(sender, connections)
    world.run(3.0)
    assert (busy.gate.share > 0) == (location == "walldorf")


def test_tenants_have_equal_parts_however_many_senders_they_have():
    world = World(senders=9)
    *ours, theirs, light = world.senders
    theirs.tenant = light.tenant = "globex"
    world.links.append((("globex", "berlin"), FakeLink(world)))
    world.run(0.5, steady=light)
    for sender in (*ours, theirs):
        world.flood(sender, 100)
    world.run(4.0, steady=light)
    done = {sender: len(world.latencies[sender]) for sender in world.senders}
    world.run(2.0, steady=light)
    got = {sender: len(world.latencies[sender]) - done[sender] for sender in world.senders}
    of_ours, of_theirs = sum(got[sender] for sender in ours), got[theirs] + got[light]
    assert 0.5 < of_ours / of_theirs < 2.0, got
    assert max(got[sender] for sender in ours) < 2 * min(got[sender] for sender in ours)
    assert world.worst(light, 300) < 0.02


def test_of_those_who_flood_only_the_ones_of_the_tenant_with_more_are_held_back():
    world = World(senders=4)
    *ours, theirs = world.senders
    theirs.tenant = "globex"
    for sender in (*ours, theirs):
        world.flood(sender, 200)
    world.run(2.0)
    assert theirs.gate.share == 0
    assert all(0 < sender.gate.share <= LEAST for sender in ours)


ACTIVE = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=2, max_size=12)


@given(ACTIVE, st.integers(CROWD // 2, 200))
def test_parts_are_fair_to_tenants_and_then_to_senders(active: list[tuple[int, int]], window: int):
    world = World(senders=len(active))
    for sender, (tenant, demand) in zip(world.senders, active, strict=True):
        sender.tenant = f"t{tenant}"
        sender.gate.in_flight = demand
    world.share._active = [_Activity(sender, 0.0) for sender in world.senders]
    for one in world.share._active:
        one.demand = one.sender.gate.in_flight
    world.share.window = window
    parts = world.share._parts()
    got: dict[str, int] = {}
    wants: dict[str, int] = {}
    for one, part in parts:
        assert part >= 1
        got[one.sender.tenant] = got.get(one.sender.tenant, 0) + min(part, one.demand)
        wants[one.sender.tenant] = wants.get(one.sender.tenant, 0) + one.demand
        others = [part for other, part in parts if other.sender.tenant == one.sender.tenant]
        assert set(others) == {part}, "of one tenant all have the same level"
    if len(got) > 1:
        slack = 3 * LEAST + len(active)  # what each may always have
        for mine, theirs in itertools.permutations(got, 2):
            assert got[mine] >= min(wants[mine], got[theirs] - slack)
        assert sum(got.values()) <= window + slack * len(got)


def test_a_tenant_that_is_not_pinged_goes_by_what_all_wait_for():
    pings, world = LatePings(), World()
    world.push(world.senders[0])
    links = [((f"t{n}", "l"), FakeLink(world, late=0.05 * n)) for n in range(1, PINGED + 1)]
    pings.choose(links, world.clock.now)
    pings.look(world.clock.now)
    world.clock.sleep(0.45)
    world.clock.run()
    assert pings.look(world.clock.now)
    assert pings.wait_of("t4")[0] == pytest.approx(0.2, abs=0.01)
    assert pings.wait_of("another")[0] == pytest.approx(0.05, abs=0.01)


def test_who_was_active_long_ago_counts_no_more():
    world = World()
    flood, light = world.senders
    world.run(0.5, steady=light)
    world.flood(flood, 512)
    world.run(2.0, steady=light)
    assert world.share.narrowed == 1
    world.run(ACTIVE_FOR + 1.0)
    assert world.share.narrowed == 0
    assert flood.gate.in_flight == 512


def test_stopping_lets_everybody_go():
    world = World()
    flood, light = world.senders
    world.run(0.5, steady=light)
    world.flood(flood, 512)
    world.run(1.0, steady=light)
    assert world.queue.waiting
    world.share.stop()
    world.clock.run()
    assert flood.gate.in_flight == 512
    assert world.queue.waiting == 0


def test_connections_that_stay_are_not_counted():
    gate = Gate()
    sender = Sender("acme", "s", gate, SenderMetrics("acme", "s"))
    world = World()
    for _ in range(100):
        assert world.limits.admit(sender, world.route, None, 0.0) is None
        world.limits.stays(sender)
    gate.narrow(LEAST)
    for _ in range(LEAST):
        assert not gate.is_shut(0.0)
        assert world.limits.admit(sender, world.route, None, 0.0) is None
    assert gate.is_shut(0.0)
    assert gate.is_held_back
    for _ in range(50):
        world.limits.passes(sender)
        world.limits.release(sender, world.route)
    assert gate.max_in_flight == 50 + LEAST
    gate.narrow(0)
    assert gate.max_in_flight == 0
    assert not gate.is_held_back


def test_a_limit_of_its_own_stays_in_force():
    gate = Gate(10)
    gate.narrow(4)
    assert gate.max_in_flight == 4
    gate.configure(3, 0.0, 0.0)
    assert gate.max_in_flight == 3
    gate.in_flight = 3
    assert not gate.is_held_back, "it is its own limit"
    gate.configure(20, 0.0, 0.0)
    assert gate.max_in_flight == 4
    gate.narrow(0)
    assert gate.max_in_flight == 20


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200))
def test_the_level_is_the_fairest(demands, total):
    level = level_of(demands, total)
    assert sum(min(demand, level) for demand in demands) <= max(total, 0)
    if any(demand > level for demand in demands):
        assert sum(min(demand, level + 1) for demand in demands) > total


def test_steps_are_short():
    assert STEP <= 0.05


def test_many_quiet_tunnels_are_not_looked_through_all_the_time():
    world = World(target=0.1)
    busy, light = world.senders
    asked: list[float] = []

    def links() -> list[tuple[Place, Link]]:
        asked.append(world.clock.now)
        return world.links

    world.links.extend((("globex", f"l{n}"), QuietLink(world)) for n in range(20_000))
    world.share._links = links
    world.run(0.5, steady=light)
    world.flood(busy, 100)
    asked.clear()
    world.run(2.0, steady=light)
    assert 1 <= len(asked) <= 6
    assert world.share.narrowed == 0


def test_many_senders_of_whom_one_pushes_are_not_looked_through_all_the_time():
    world = World(senders=10_000, target=0.1)
    asked: list[float] = []

    def senders() -> list[Sender]:
        asked.append(world.clock.now)
        return world.senders

    world.share._senders = senders
    world.flood(world.senders[0], 100)
    world.run(2.0)
    asked.clear()
    world.run(4.0)
    assert 1 <= len(asked) <= 5


def test_a_connector_that_keeps_its_answers_takes_nothing_of_what_others_get_done():
    """Thousands of pushes a second always have some under way: that is no pile, whatever another's pings say."""
    world = World(senders=3, capacity=20_000.0, target=0.005)
    busy, hostile, light = world.senders
    hostile.tenant = light.tenant = "globex"
    world.links.append((("globex", "berlin"), FakeLink(world, late=0.1)))
    world.flood(busy, 60)
    world.run(1.0)
    before = len(world.latencies[busy])
    world.run(1.0)
    alone = len(world.latencies[busy]) - before
    assert alone > 6000
    world.flood(hostile, 20)
    before = len(world.latencies[busy])
    for _ in range(100):
        world.run(STEP, steady=light)
        assert busy.gate.share == 0
    assert len(world.latencies[busy]) - before > 0.95 * 5 * alone
