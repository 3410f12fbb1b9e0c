"""Gates and limits in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.gates import Gate
from cloud_relay.limits import LONGEST_RETRY_AFTER, Limits
from cloud_relay.metrics import RelayMetrics, SenderMetrics
from cloud_relay.routing import Route
from cloud_relay.senders import Realm, Sender
from shared.errors import FAULTS
from shared.protocol.budget import MemoryBudget


def make_sender(**figures: Any) -> Sender:
    return Sender("acme", "s4", Gate(**figures), SenderMetrics("acme", "s4"))


def make_route(quota: str = "quota-exceeded", **figures: Any) -> Route:
    return Route(
        tenant="acme", name="r", host=b"h", path=b"/", sub_paths=True, location="l", target="t", senders=frozenset(),
        realm=Realm("acme", []), gate=Gate(**figures), metrics=RelayMetrics(process=False).route("acme", "r"),
        quota_fault=FAULTS[quota], max_body=1000, hold=3.0, timeout=30.0,
    )  # fmt: skip


def test_a_gate_without_limits_never_shuts() -> None:
    gate = Gate()
    for _ in range(1000):
        assert not gate.is_shut(0.0)
        gate.enter(0.0)
    assert gate.opens_in(0.0) == 0.0


def test_in_flight_counts_up_and_down() -> None:
    gate = Gate(max_in_flight=2)
    gate.enter(0.0)
    gate.enter(0.0)
    assert gate.is_shut(1e9)
    gate.leave()
    assert not gate.is_shut(0.0)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_bucket_gives_its_burst_and_then_its_rate(rate: int, burst: int) -> None:
    gate = Gate(rate=float(rate), burst=float(burst))
    start = 1000.0
    for _ in range(burst):
        assert not gate.is_shut(start)
        gate.enter(start)
    assert gate.is_shut(start)
    wait = gate.opens_in(start)
    assert wait == pytest.approx(1 / rate, abs=1e-6)
    assert not gate.is_shut(start + wait + 1e-9)
    # After a long pause the burst is back, and no more than it.
    later = start + burst / rate + 1
    passed = 0
    while not gate.is_shut(later):
        gate.enter(later)
        passed += 1
    assert passed == burst


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_more_passes_than_burst_and_rate_allow(pauses: list[float]) -> None:
    gate = Gate(rate=10.0, burst=5.0)
    now = 50.0
    passed = 0
    for pause in pauses:
        now += pause
        if not gate.is_shut(now):
            gate.enter(now)
            passed += 1
    assert passed <= 5 + (now - 50.0) * 10.0 + 1


def test_a_push_that_is_refused_counts_nowhere() -> None:
    limits = Limits()
    sender, route = make_sender(rate=1.0, burst=1.0), make_route()
    assert limits.admit(sender, route, 10, 0.0) is None
    assert limits.admit(sender, route, 10, 0.0) is FAULTS["quota-exceeded"]
    assert (sender.gate.in_flight, route.gate.in_flight, limits.in_flight) == (1, 1, 1)
    limits.release(sender, route)
    assert (sender.gate.in_flight, route.gate.in_flight, limits.in_flight) == (0, 0, 0)


def test_a_full_route_takes_no_token_of_the_sender() -> None:
    limits = Limits()
    sender, route = make_sender(rate=1.0, burst=1.0), make_route(max_in_flight=1)
    route.gate.enter(0.0)
    assert limits.admit(sender, route, None, 0.0) is FAULTS["quota-exceeded"]
    assert limits.admit(sender, make_route(), None, 0.0) is None


def test_the_route_says_which_status_a_quota_has() -> None:
    route = make_route("quota-exceeded-try-later", max_in_flight=1)
    route.gate.enter(0.0)
    assert Limits().admit(make_sender(), route, None, 0.0) is FAULTS["quota-exceeded-try-later"]


def test_a_declared_length_over_the_limit_is_refused_at_once() -> None:
    limits = Limits()
    assert limits.admit(make_sender(), make_route(), 1001, 0.0) is FAULTS["body-too-large"]
    assert limits.admit(make_sender(), make_route(), 1000, 0.0) is None
    assert limits.admit(make_sender(), make_route(), None, 0.0) is None


def test_the_process_has_an_end_too() -> None:
    limits = Limits(max_in_flight=1)
    sender, route = make_sender(), make_route()
    assert limits.admit(sender, route, None, 0.0) is None
    assert limits.admit(sender, route, None, 0.0) is FAULTS["overloaded"]


def flood(limits: Limits, sender: Sender) -> int:
    """How many pushes of one sender are let in, none of which ends."""
    route, let_in = make_route(), 0
    while limits.admit(sender, route, None, 0.0) is None:
        let_in += 1
    return let_in


def of_tenant(limits: Limits, tenant: str, name: str) -> Sender:
    return Sender(tenant, name, limits.gate(tenant, "sender", name, 0, 0.0, 0.0), SenderMetrics(tenant, name))


def test_a_tenants_flood_leaves_room_for_others() -> None:
    limits = Limits(800)
    limits.resize(800, 3)
    flooder, accomplice = of_tenant(limits, "acme", "s4"), of_tenant(limits, "acme", "ibp")
    assert flood(limits, flooder) + flood(limits, accomplice) == 700
    polite = of_tenant(limits, "globex", "s4")
    assert limits.admit(polite, make_route(), None, 0.0) is None
    limits.release(flooder, make_route())
    assert limits.admit(flooder, make_route(), None, 0.0) is FAULTS["overloaded"]
    assert flood(limits, polite) > 30
    assert limits.places.active == 2
    for _ in range(100):  # the flood ends: what it gives back, the other may have
        limits.release(accomplice if accomplice.gate.in_flight else flooder, make_route())
    assert flood(limits, polite) > 50
    assert limits.admit(of_tenant(limits, "initech", "s4"), make_route(), None, 0.0) is None
    assert repr(limits).startswith("<Limits ")


def test_a_tenants_pushes_are_counted_over_reloads_and_released_once() -> None:
    limits = Limits(80)
    limits.resize(80, 2)
    old = of_tenant(limits, "acme", "s4")
    assert flood(limits, old) == 70
    limits.keep_only(set())  # the tenant has no senders for a while
    new = of_tenant(limits, "acme", "s4")
    assert new.gate is not old.gate
    assert limits.admit(new, make_route(), None, 0.0) is FAULTS["overloaded"]
    for _ in range(70):
        limits.release(old, make_route())
    assert (limits.in_flight, limits.places.active) == (0, 0)
    assert limits.open_gate("acme").holding is new.gate.holding
    limits.keep_only(set())
    assert limits.open_gate("acme").holding is not new.gate.holding


def test_workers_have_a_part_of_the_process_limit_each() -> None:
    limits = Limits(1000, part=0.25)
    assert limits.places.limit == 250
    limits.resize(100, 1)
    assert limits.places.limit == 25
    limits.resize(2, 1)
    assert limits.places.limit == 1


def test_a_spent_budget_takes_no_new_push() -> None:
    budget = MemoryBudget(limit=100)
    limits = Limits(budget=budget)
    budget.used = 101
    assert limits.admit(make_sender(), make_route(), None, 0.0) is FAULTS["overloaded"]
    budget.used = 100
    assert limits.admit(make_sender(), make_route(), None, 0.0) is None


def test_retry_after_is_a_short_whole_number() -> None:
    limits = Limits()
    slow = make_sender(rate=1 / 3600, burst=1.0)
    limits.admit(slow, make_route(), None, 0.0)
    assert limits.retry_after(slow, make_route(), 0.0) == LONGEST_RETRY_AFTER
    assert limits.retry_after(make_sender(), make_route(), 0.0) == 1
    fast = make_sender(rate=0.5, burst=1.0)
    limits.admit(fast, make_route(), None, 0.0)
    assert limits.retry_after(fast, make_route(), 0.0) == 2


def test_a_rate_that_is_taken_away_holds_nobody_back() -> None:
    gate = Gate(rate=1.0, burst=1.0)
    gate.enter(0.0)
    assert gate.is_shut(0.0)
    gate.configure(0, 1.0, 1.0)
    assert gate.is_shut(0.0)
    gate.configure(0, 0.0, 0.0)
    assert not gate.is_shut(0.0)


def test_gates_are_kept_over_reloads_with_new_figures() -> None:
    limits = Limits()
    gate = limits.gate("acme", "route", "r", 5, 0.0, 0.0)
    gate.enter(0.0)
    assert limits.gate("acme", "route", "r", 1, 0.0, 0.0) is gate
    assert gate.is_shut(0.0)
    limits.keep_only(set())
    assert limits.gate("acme", "route", "r", 5, 0.0, 0.0) is not gate
