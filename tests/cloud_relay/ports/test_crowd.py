"""Who waits at a port: everybody gets in, nobody takes more than his share, the oldest makes way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.ports.crowd import Crowd

SHARE, LIMIT = 3, 7


class One:
    def __init__(self, name: str, crowd: Crowd[One]) -> None:
        self.name = name
        self.crowd = crowd
        self.is_gone = False

    def make_way(self) -> None:
        assert not self.is_gone
        self.is_gone = True
        self.crowd.leave(self)

    def __repr__(self) -> str:
        return self.name


@pytest.fixture
def crowd() -> Crowd[One]:
    return Crowd(LIMIT, str.lower)


def join(crowd: Crowd[One], *names: str) -> list[One]:
    """One for each name, whose first letter is its key."""
    made = [One(name, crowd) for name in names]
    for one in made:
        crowd.join(one, one.name[0], SHARE)
    return made


def names(crowd: Crowd[One]) -> list[str]:
    return [one.name for one in crowd.everybody()]


def test_who_has_his_share_pushes_out_his_own_oldest(crowd):
    join(crowd, "a1", "b1", "a2", "a3", "a4", "a5")
    assert names(crowd) == ["b1", "a3", "a4", "a5"]


def test_when_it_is_full_the_oldest_of_all_goes(crowd):
    join(crowd, "a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1")
    assert names(crowd) == ["b1", "c1", "d1", "e1", "f1", "g1", "h1"]


def test_when_it_is_full_the_oldest_of_the_group_with_most_goes(crowd):
    join(crowd, "b1", "c1", "d1", "a1", "e1", "A1", "f1", "g1")
    assert names(crowd) == ["b1", "c1", "d1", "e1", "A1", "f1", "g1"], "a and A are one group, and had the most"


def test_who_says_whose_he_is_counts_there(crowd):
    told, *_ = join(crowd, "x1", "a1", "a2", "a3", "x2")
    crowd.move(told, "a", SHARE)
    assert names(crowd) == ["x1", "a2", "a3", "x2"], "a's oldest made way for it; it is still the oldest of all"
    join(crowd, "x3", "x4")
    assert names(crowd) == ["x1", "a2", "a3", "x2", "x3", "x4"], "its place under x is free again"


def test_leaving_twice_does_nothing(crowd):
    one, _ = join(crowd, "a1", "a2")
    crowd.leave(one)
    crowd.leave(one)
    crowd.move(one, "b", SHARE)
    assert repr(crowd) == "<Crowd of 1 under 1 keys>"


KEYS = st.sampled_from("abcde")
STEPS = st.lists(st.one_of(
    st.tuples(st.just("join"), KEYS), st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("move"), st.integers(0, 9), KEYS),
))  # fmt: skip


@given(STEPS)
def test_in_whatever_order(steps):
    crowd: Crowd[One] = Crowd(LIMIT, str.lower)
    key_of: dict[One, str] = {}
    for kind, *rest in steps:
        here = [one for one in key_of if not one.is_gone]
        if kind == "join":
            one = One(rest[0], crowd)
            crowd.join(one, rest[0], SHARE)
            key_of[one] = rest[0]
            assert one in crowd.everybody(), "whoever comes gets in"
        elif here:
            one = here[rest[0] % len(here)]
            if kind == "leave":
                crowd.leave(one)
                one.is_gone = True
            else:
                crowd.move(one, rest[1], SHARE)
                key_of[one] = rest[1]
                assert not one.is_gone
        here = [one for one in key_of if not one.is_gone]
        assert crowd.everybody() == here
        assert len(crowd) <= LIMIT
        for key in "abcde":
            assert sum(key_of[one] == key for one in here) <= SHARE
    for one in crowd.everybody():
        crowd.leave(one)
    assert repr(crowd) == "<Crowd of 0 under 0 keys>"
