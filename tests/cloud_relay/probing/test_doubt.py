"""When pushes have a target taken out, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.probing.doubt import ENOUGH, FIRST, IN_A_ROW, LONGEST, MEMORY, WINDOW, Doubt

CODE = "target-unreachable"


def fail(doubt: Doubt, times: int, now: float = 0.0) -> list[bool]:
    return [doubt.fail(CODE, now) for _ in range(times)]


def test_so_many_in_a_row():
    doubt = Doubt(0.0)
    assert fail(doubt, IN_A_ROW - 1) == [False] * (IN_A_ROW - 1)
    doubt.deliver(0.0)
    assert fail(doubt, IN_A_ROW) == [False] * (IN_A_ROW - 1) + [True]
    assert doubt.is_tripped
    assert doubt.code == CODE
    assert fail(doubt, 10) == [False] * 10, "it is out already"


def test_in_a_row_however_seldom_they_come():
    doubt = Doubt(0.0)
    assert [doubt.fail(CODE, 60.0 * minute) for minute in range(IN_A_ROW)][-1]


def test_too_large_a_share_of_many():
    doubt = Doubt(0.0)
    tripped = []
    for _ in range(ENOUGH):
        doubt.deliver(1.0)
        tripped.append(doubt.fail(CODE, 1.0))
        if tripped[-1]:
            break
    assert tripped.count(True) == 1
    assert len(tripped) == ENOUGH // 2


def test_a_small_share_is_borne():
    doubt = Doubt(0.0)
    for _ in range(500):
        assert not doubt.fail(CODE, 1.0)
        doubt.deliver(1.0)
        doubt.deliver(1.0)
    assert not doubt.is_tripped


def test_what_was_long_ago_does_not_count_in_the_share():
    doubt = Doubt(0.0)
    for _ in range(ENOUGH // 2 - 1):
        doubt.fail(CODE, 0.0)
        doubt.deliver(0.0)
    later = WINDOW + 1
    assert fail(doubt, 1, later) == [False]
    assert not doubt.is_tripped


def test_longer_each_time_up_to_a_limit_and_short_again_after_a_good_while():
    doubt, now, lasted = Doubt(0.0), 0.0, []
    for _ in range(7):
        fail(doubt, IN_A_ROW, now)
        lasted.append(doubt.out_until - now)
        assert not doubt.may_return(doubt.out_until - 0.1)
        now = doubt.out_until
        assert doubt.may_return(now)
        doubt.come_back(now)
        assert not doubt.is_tripped
    assert lasted == [min(FIRST * 2.0**n, LONGEST) for n in range(7)]
    assert not doubt.is_forgotten(now + MEMORY - 1)
    assert doubt.is_forgotten(now + MEMORY + 1)


def test_one_that_never_tripped_is_forgotten_soon_and_one_that_is_out_never():
    doubt = Doubt(0.0)
    fail(doubt, 1)
    assert not doubt.is_forgotten(WINDOW)
    assert doubt.is_forgotten(WINDOW + 1)
    fail(doubt, IN_A_ROW)
    assert not doubt.is_forgotten(1e6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=200))
def test_a_delivery_never_trips_and_failures_only_by_the_rules(events):
    doubt, now, row = Doubt(0.0), 0.0, 0
    for is_good, pause in events:
        now += pause
        if is_good:
            row = 0
            doubt.deliver(now)
        elif doubt.fail(CODE, now):
            assert row + 1 >= IN_A_ROW or row + 1 < ENOUGH
            return
        else:
            row += 1
            assert row < IN_A_ROW
        assert not doubt.is_tripped
