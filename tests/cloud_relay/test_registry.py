"""The registry: who takes a push, who waits, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_relay.admit import Identity
from cloud_relay.registry import MAX_IN_A_ROW, Registry
from cloud_relay.session import Session

KEY = ("acme", "walldorf", "frun")


class FakeLink:
    def __init__(self) -> None:
        self.in_flight = 0
        self.can_open = True
        self.accepts = True
        self.is_gathering = False

    def stall(self) -> None:
        """Suspect, or draining."""
        self.can_open = self.accepts = False


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


def make_session(
    connector: str = "c1", *targets: str, location: str = "walldorf", tenant: str = "acme", is_standby: bool = False
) -> Session:
    identity = Identity(tenant, location, connector, "ab", datetime(2030, 1, 1, tzinfo=UTC))
    link: Any = FakeLink()
    return Session(identity, link, "i1", dict.fromkeys(targets or ("frun",), "http"), 0.0, 1, is_standby=is_standby)


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
    draws = iter([0.0, 0.0, 0.99, 0.0, 0.0, 0.99])
    registry = Registry(FakeLoop(), lambda: next(draws))
    busy, idle, busiest = make_session("c1"), make_session("c2"), make_session("c3")
    fake(busy).in_flight, fake(busiest).in_flight = 5, 9
    for session in (busy, idle, busiest):
        registry.attach(session)
    assert registry.choose(*KEY) is busy  # the first and the last
    assert registry.choose(*KEY) is idle  # the last and the one before
    assert registry.choose(*KEY) is idle  # the first and the second


def test_of_two_tunnels_always_the_one_with_fewer_pushes(registry):
    sessions = [make_session("c1"), make_session("c1")]
    for session in sessions:
        registry.attach(session)
    for _ in range(101):
        fake(registry.choose(*KEY)).in_flight += 1
    assert sorted(fake(session).in_flight for session in sessions) == [50, 51]


def test_a_standby_takes_pushes_only_where_no_active_one_is_left(registry):
    active, standby = make_session("a"), make_session("s", is_standby=True)
    registry.attach(standby)
    assert registry.choose(*KEY) is standby
    registry.attach(active)
    assert {registry.choose(*KEY) for _ in range(20)} == {active}
    assert registry.choose(*KEY, exclude=(active,)) is standby
    fake(active).stall()
    assert registry.choose(*KEY) is standby
    fake(active).accepts = True
    assert registry.choose(*KEY) is None, "it is only full: its next place is waited for"
    registry.detach(active)
    assert registry.choose(*KEY) is standby


def test_an_active_one_that_lacks_the_target_counts_for_others_only(registry):
    registry.attach(make_session("a", "other"))
    standby = make_session("s", "frun", "other", is_standby=True)
    registry.attach(standby)
    assert registry.choose(*KEY) is standby
    assert registry.choose("acme", "walldorf", "other") is not standby


def test_those_that_are_passed_over_come_last(registry):
    one, other, standby = make_session("a"), make_session("b"), make_session("s", is_standby=True)
    for session in (one, other, standby):
        registry.attach(session)
    registry.pass_over(KEY, frozenset({"a"}))
    assert {registry.choose(*KEY) for _ in range(20)} == {other}
    registry.pass_over(KEY, frozenset({"a", "b"}))
    assert {registry.choose(*KEY) for _ in range(20)} == {standby}
    registry.pass_over(KEY, frozenset({"a", "b", "s"}))
    assert {registry.choose(*KEY) for _ in range(50)} == {one, other}, "all are ill: a push tries"
    registry.pass_over(KEY, frozenset())
    assert {registry.choose(*KEY) for _ in range(50)} == {one, other}
    registry.pass_over(KEY, frozenset({"a"}))
    late = make_session("a")
    registry.attach(late)
    assert {registry.choose(*KEY) for _ in range(20)} == {other}, "nor do its new tunnels"


def test_what_was_chosen_last_is_forgotten_when_it_is_passed_over(registry):
    one, other = make_session("a"), make_session("b")
    for session in (one, other):
        registry.attach(session)
        fake(session).is_gathering = True
    first = registry.choose(*KEY)
    registry.pass_over(KEY, frozenset({first.identity.connector}))
    assert registry.choose(*KEY) is not first


def test_of_one_rank_another_connector_comes_before_another_tunnel(registry):
    tried, same, other, ill = (make_session(name) for name in ("a", "a", "b", "c"))
    for session in (tried, same, other, ill):
        registry.attach(session)
    registry.pass_over(KEY, frozenset({"c"}))
    assert {registry.choose(*KEY, exclude=(tried,)) for _ in range(20)} == {other}
    registry.detach(other)
    assert {registry.choose(*KEY, exclude=(tried,)) for _ in range(20)} == {same}
    assert registry.choose(*KEY, exclude=(tried,), other_connector=True) is ill


class Witness:
    """A Watcher that keeps who exposes what."""

    def __init__(self) -> None:
        self.exposed_now: dict[tuple[str, str, str], list[Session]] = {}

    def exposed(self, session: Session, keys: Any) -> None:
        for key in keys:
            self.exposed_now.setdefault(key, []).append(session)

    def hidden(self, session: Session, keys: Any) -> None:
        for key in keys:
            self.exposed_now[key].remove(session)


def test_a_watcher_sees_what_is_exposed(registry):
    registry.watcher = witness = Witness()
    session = make_session("c1", "a")
    registry.attach(session)
    registry.update_targets(session, {"a": "http", "b": "tcp"})
    assert witness.exposed_now == {("acme", "walldorf", "a"): [session], ("acme", "walldorf", "tcp:b"): [session]}
    registry.detach(session)
    assert not any(witness.exposed_now.values())


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


def test_a_place_in_a_full_tunnel_is_for_tcp_connections_too(registry, loop):
    session = make_session("c1")
    session.targets = {"syslog": "tcp"}
    registry.attach(session)
    called: list[bool] = []
    registry.wait((*KEY[:2], "tcp:syslog"), lambda: called.append(True))
    assert registry.on_room(session)
    loop.tick()
    assert called == [True]


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
        self.over: dict[str, frozenset[str]] = {}

    @rule(name=st.sampled_from("abc"), connectors=st.frozensets(st.sampled_from(["c1", "c2"])))
    def pass_over(self, name: str, connectors: frozenset[str]) -> None:
        self.over[name] = connectors
        self.registry.pass_over(("acme", "walldorf", name), connectors)

    @rule(connector=st.sampled_from(["c1", "c2"]), names=st.sets(st.sampled_from("abc")), standby=st.booleans())
    def attach(self, connector: str, names: set[str], standby: bool) -> None:
        session = make_session(connector, *(names or {"a"}), is_standby=standby)
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
            link.accepts = link.can_open or data.draw(st.booleans())
            link.is_gathering = not link.is_gathering

    @invariant()
    def agrees(self) -> None:
        assert self.registry.sessions() == self.live
        for target in "abc":
            exposing = [one for one in self.live if target in one.targets]
            usable = [one for one in exposing if fake(one).can_open]
            assert self.registry.count(("acme", "walldorf", target)) == len(usable)
            chosen = self.registry.choose("acme", "walldorf", target)
            best = min((self.rank(target, one) for one in exposing if fake(one).accepts), default=None)
            if any(self.rank(target, one) == best for one in usable):
                assert chosen in usable
                # Within a turn of the loop the last choice may be kept.
                assert self.rank(target, chosen) == best or fake(chosen).is_gathering
            else:
                assert chosen is None or (chosen in usable and fake(chosen).is_gathering)
        for connector in ("c1", "c2"):
            mine = [one for one in self.live if one.identity.connector == connector]
            assert self.registry.of_connector(("acme", "walldorf", connector)) == mine

    def rank(self, target: str, session: Session) -> tuple[bool, bool]:
        return session.identity.connector in self.over.get(target, ()), session.is_standby


TestRegistryMachine = RegistryMachine.TestCase
