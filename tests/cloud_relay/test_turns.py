"""Turns in two levels, and who has most, against plain models."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.tally import Tally
from cloud_relay.turns import Turns

GROUPS, MEMBERS = 3, 4
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, GROUPS - 1), st.integers(0, MEMBERS - 1)),
        st.tuples(st.sampled_from(["next", "drop"]), st.just(0), st.just(0)),
    ),
    max_size=100,
)


@given(STEPS)
def test_everything_comes_once_and_in_turn(steps: list[tuple[str, int, int]]) -> None:
    turns: Turns[tuple[int, int, int]] = Turns(2)
    waiting: list[tuple[int, int, int]] = []
    served: list[tuple[int, int, int]] = []
    for number, (what, group, member) in enumerate(steps):
        if what == "add":
            turns.add((group, member, number), group, (group, member))
            waiting.append((group, member, number))
        elif what == "next":
            found = turns.next()
            assert (found is None) == (not waiting)
            if found is not None:
                assert found == min(one for one in waiting if one[:2] == found[:2])  # its member's own order
                waiting.remove(found)
                served.append(found)
        elif waiting:
            most = Counter(one[0] for one in waiting)
            dropped = turns.drop()
            assert most[dropped[0]] == max(most.values())
            assert dropped == max(one for one in waiting if one[:2] == dropped[:2])
            waiting.remove(dropped)
        assert len(turns) == len(waiting)
        assert sorted(turns) == sorted(waiting)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60))
def test_no_group_has_two_turns_more_than_another_that_waits(added: list[tuple[int, int]]) -> None:
    turns: Turns[int] = Turns(2)
    left: Counter[int] = Counter()
    for group, member in added:
        turns.add(group, group, (group, member))
        left[group] += 1
    had: Counter[int] = Counter()
    while len(turns):
        turn = turns.next()
        assert turn is not None
        had[turn] += 1
        left[turn] -= 1
        waits = [one for one in range(3) if left[one]]
        assert all(had[turn] - had[one] <= 1 for one in waits)


def test_a_network_of_many_sources_has_the_turns_of_one() -> None:
    turns: Turns[str] = Turns(2)
    for number in range(1000):
        turns.add("many", "2001:db8::/48", f"2001:db8:0:{number:x}::/64")
    turns.add("one", "192.0.2.0/24", "192.0.2.7")
    turns.add("one", "192.0.2.0/24", "192.0.2.7")
    assert [turns.next() for _ in range(5)] == ["many", "one", "many", "one", "many"]
    assert repr(turns) == "<Turns 997 waiting in 1 groups>"


def test_three_levels() -> None:
    turns: Turns[str] = Turns(3)
    for name in ("aa1", "aa2", "ab3", "b4", "b5"):
        turns.add(name, name[0], name[:2], name)
    assert turns.drop() == "aa2"
    assert list(turns) == ["aa1", "ab3", "b4", "b5"]
    assert [turns.next() for _ in range(5)] == ["aa1", "b4", "ab3", "b5", None]
    assert len(turns) == 0


def test_of_equals_the_last_one_loses_what_came_last() -> None:
    turns: Turns[str] = Turns(2)
    for name in ("a1", "b1", "a2", "b2", "a3"):
        turns.add(name, name[0], name)
    assert [turns.drop() for _ in range(4)] == ["a3", "a2", "b2", "b1"]


def test_who_may_not_is_passed_by() -> None:
    turns: Turns[int] = Turns(2)
    turns.add(1, "a", "a1")
    turns.add(2, "a", "a2")
    turns.add(3, "b", "b1")
    assert turns.next(lambda member: member != "a1") == 2
    assert turns.next(lambda member: member == "a2") is None
    assert [turns.next(), turns.next(), turns.next()] == [3, 1, None]
    with pytest.raises(KeyError):
        turns.drop()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=100))
def test_a_tally_knows_who_has_most(steps: list[tuple[bool, int]]) -> None:
    tally: Tally[int] = Tally()
    model: Counter[int] = Counter()
    for adds, key in steps:
        if adds:
            tally.add(key)
            model[key] += 1
        elif model[key]:
            tally.remove(key)
            model[key] -= 1
        else:
            with pytest.raises(KeyError):
                tally.remove(key)
        most = max(model.values(), default=0)
        for largest in (tally.largest(), tally.largest(latest=True)):
            assert (largest is None) == (most == 0)
            assert largest is None or model[largest] == most
        assert [tally[one] for one in range(5)] == [model[one] for one in range(5)]
        assert len(tally) == sum(count > 0 for count in model.values())
    assert repr(tally).startswith("<Tally of ")
