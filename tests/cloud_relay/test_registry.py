"""The registry: who takes a push, who waits, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_relay.admit import Identity
from cloud_relay.registry import MAX_IN_A_ROW, Registry, Session

KEY = ("acme", "walldorf", "frun")


class FakeLink:
    def __init__(self) -> None:
        self.in_flight = 0
        self.can_open = True
        self.is_gathering = False


class FakeLoop:
    """Keeps what was scheduled."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def tick(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def make_session(connector: str = "c1", *targets: str, location: str = "walldorf", tenant: str = "acme") -> Session:
    identity = Identity(tenant, location, connector, "ab", datetime(2030, 1, 1, tzinfo=UTC))
    link: Any = FakeLink()
    return Session(identity, link, "i1", dict.fromkeys(targets or ("frun",), "http"), 0.0, 1)


def fake(session: Session) -> FakeLink:
    link: Any = session.link
    assert isinstance(link, FakeLink)
    return link


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def registry(loop: FakeLoop) -> Registry:
    return Registry(loop)


def test_keyed_by_tenant_location_and_target(registry):
    session = make_session()
    registry.attach(session)
    assert registry.choose(*KEY) is session
    for other in [("other", "walldorf", "frun"), ("acme", "paris", "frun"), ("acme", "walldorf", "x")]:
        assert registry.choose(*other) is None
    registry.detach(session)
    assert registry.choose(*KEY) is None
    assert repr(registry) == "<Registry 0 sessions, 0 keys, 0 waiting>"


def test_fewest_in_flight_of_two_random_ones():
    draws = iter([0.0, 0.99, 0.99, 0.0, 0.0, 0.0])
    registry = Registry(FakeLoop(), lambda: next(draws))
    busy, idle = make_session("c1"), make_session("c2")
    fake(busy).in_flight = 5
    registry.attach(busy)
    registry.attach(idle)
    assert registry.choose(*KEY) is idle
    assert registry.choose(*KEY) is idle
    assert registry.choose(*KEY) is busy  # drawn twice


def test_what_cannot_open_or_is_excluded_is_passed_over(registry):
    sessions = [make_session(f"c{number}") for number in range(4)]
    for session in sessions:
        registry.attach(session)
    for session in sessions[:3]:
        fake(session).can_open = False
    assert all(registry.choose(*KEY) is sessions[3] for _ in range(20))
    assert registry.count(KEY) == 1
    assert registry.choose(*KEY, exclude=(sessions[3],)) is None
    fake(sessions[0]).can_open = True
    assert all(registry.choose(*KEY, exclude=(sessions[3],)) is sessions[0] for _ in range(20))


def test_another_connector_is_another_identity(registry):
    first, second, other = make_session("c1"), make_session("c1"), make_session("c2")
    for session in (first, second, other):
        registry.attach(session)
    for _ in range(20):
        assert registry.choose(*KEY, exclude=(first,)) in {second, other}
        assert registry.choose(*KEY, exclude=(first,), other_connector=True) is other
    registry.detach(other)
    assert registry.choose(*KEY, exclude=(first,)) is second
    assert registry.choose(*KEY, exclude=(first,), other_connector=True) is None


def test_load_is_spread(registry):
    sessions = [make_session(f"c{number}") for number in range(8)]
    for session in sessions:
        registry.attach(session)
    for _ in range(800):
        fake(registry.choose(*KEY)).in_flight += 1
    loads = [fake(session).in_flight for session in sessions]
    assert sum(loads) == 800
    assert max(loads) - min(loads) < 20


def test_a_session_that_is_usable_again_wakes_who_waits_for_its_targets(registry, loop):
    session, stranger = make_session("c1", "a", "b"), make_session("c2", "a")
    registry.attach(session)
    called: list[str] = []
    for target in ("a", "b", "c"):
        registry.wait((*KEY[:2], target), lambda target=target: called.append(target))
    registry.on_usable(stranger)
    loop.tick()
    assert called == [], "it is not attached"
    registry.on_usable(session)
    assert called == []
    loop.tick()
    assert called == ["a", "b"]
    registry.on_usable(session)
    loop.tick()
    assert called == ["a", "b"]


def test_a_place_in_a_full_tunnel_is_for_the_first_who_waits(registry, loop):
    session, stranger = make_session("c1", "a", "b"), make_session("c2", "a")
    registry.attach(session)
    called: list[str] = []
    first, *_ = [registry.wait((*KEY[:2], "a"), lambda name=name: called.append(name)) for name in "123"]
    registry.wait((*KEY[:2], "b"), lambda: called.append("b"))
    assert not registry.on_room(stranger), "it is not attached"
    first.cancel()
    woken = []
    for _ in range(4):
        woken.append(registry.on_room(session))
        loop.tick()
    assert woken == [True, True, True, False]
    assert called == ["2", "3", "b"]


def test_targets_change(registry):
    session = make_session("c1", "a", "b")
    registry.attach(session)
    registry.update_targets(session, {"b": "http", "c": "tcp"})
    found = [registry.choose("acme", "walldorf", target) for target in ("a", "b", "c", "tcp:b", "tcp:c")]
    assert found == [None, session, None, None, session], "each target is there as one kind only"
    registry.detach(session)
    registry.update_targets(session, {"a": "http"})
    assert registry.choose("acme", "walldorf", "a") is None


def test_waiters_are_called_once_on_the_next_tick(registry, loop):
    called: list[str] = []
    registry.wait(KEY, lambda: called.append("first"))
    cancelled = registry.wait(KEY, lambda: called.append("cancelled"))
    late = registry.wait(KEY, lambda: called.append("late"))
    registry.wait(("acme", "walldorf", "other"), lambda: called.append("other"))
    cancelled.cancel()
    registry.attach(make_session())
    assert called == []
    late.cancel()
    loop.tick()
    registry.attach(make_session("c2"))
    loop.tick()
    assert called == ["first"]


def test_waiters_are_called_when_a_target_appears(registry, loop):
    called: list[bool] = []
    session = make_session("c1", "other")
    registry.attach(session)
    registry.wait(KEY, lambda: called.append(True))
    registry.update_targets(session, {"frun": "http"})
    loop.tick()
    assert called == [True]


def test_detaching_twice_is_harmless(registry):
    session = make_session()
    registry.attach(session)
    registry.detach(session)
    registry.detach(session)
    assert len(registry) == 0


def test_within_a_turn_of_the_loop_pushes_follow_each_other_for_a_while():
    registry = Registry(FakeLoop())
    sessions = [make_session("c1", "frun"), make_session("c2", "frun")]
    for session in sessions:
        registry.attach(session)
        fake(session).is_gathering = True
    first = registry.choose(*KEY)
    assert first is not None
    assert {id(registry.choose(*KEY)) for _ in range(MAX_IN_A_ROW - 1)} == {id(first)}
    assert registry.choose(*KEY, exclude=(first,)) is not first
    for session in sessions:
        fake(session).is_gathering = False
    assert {id(registry.choose(*KEY)) for _ in range(100)} == {id(session) for session in sessions}


class RegistryMachine(RuleBasedStateMachine):
    """Against the simplest model: a list of live sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(FakeLoop())
        self.live: list[Session] = []

    @rule(connector=st.sampled_from(["c1", "c2"]), names=st.sets(st.sampled_from("abc")))
    def attach(self, connector: str, names: set[str]) -> None:
        session = make_session(connector, *(names or {"a"}))
        self.live.append(session)
        self.registry.attach(session)

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        if self.live:
            session = data.draw(st.sampled_from(self.live))
            self.live.remove(session)
            self.registry.detach(session)

    @rule(data=st.data(), names=st.sets(st.sampled_from("abc")))
    def change(self, data: st.DataObject, names: set[str]) -> None:
        if self.live:
            self.registry.update_targets(data.draw(st.sampled_from(self.live)), dict.fromkeys(names, "http"))

    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        if self.live:
            link = fake(data.draw(st.sampled_from(self.live)))
            link.can_open = not link.can_open
            link.is_gathering = not link.is_gathering

    @invariant()
    def agrees(self) -> None:
        assert self.registry.sessions() == self.live
        for target in "abc":
            usable = [one for one in self.live if target in one.targets and fake(one).can_open]
            chosen = self.registry.choose("acme", "walldorf", target)
            assert (chosen in usable) if usable else chosen is None
            assert self.registry.count(("acme", "walldorf", target)) == len(usable)
        for connector in ("c1", "c2"):
            mine = [one for one in self.live if one.identity.connector == connector]
            assert self.registry.of_connector(("acme", "walldorf", connector)) == mine


TestRegistryMachine = RegistryMachine.TestCase
