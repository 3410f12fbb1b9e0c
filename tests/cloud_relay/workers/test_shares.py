"""The division of a quota: never more than all of it, and all of it where it is wanted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.workers.shares import FLOOR, Division


class Workers:
    """What the workers use, as they are told, each message after a while."""

    def __init__(self, count: int) -> None:
        self.division = Division(count)
        self.used = [1.0 / count] * count
        self.on_the_way: list[tuple[int, float]] = []

    def step(self, pressures: dict[int, float], arrive: int = 99) -> None:
        self.on_the_way += self.division.divide(pressures).items()
        for _ in range(min(arrive, len(self.on_the_way))):
            worker, share = self.on_the_way.pop(0)
            self.used[worker] = share
            self.division.confirm(worker, share)
        assert sum(self.used) <= 1.0 + 1e-6


@pytest.mark.parametrize("count", [2, 3, 8])
def test_one_that_is_pressed_alone_soon_has_nearly_all(count: int) -> None:
    workers = Workers(count)
    for _ in range(4):
        workers.step({1: 1.0})
    assert workers.used[1] > 0.9
    for _ in range(12):
        workers.step({0: 1.0})
    assert workers.used[0] > 0.9
    assert min(workers.used) >= FLOOR / count / 2


def test_equally_pressed_ones_stay_as_they_are() -> None:
    workers = Workers(4)
    for _ in range(20):
        workers.step(dict.fromkeys(range(4), 1.0))
    assert workers.used == [0.25] * 4


def test_nobody_pressed_changes_nothing() -> None:
    division = Division(3)
    assert division.divide({}) == {}


def test_less_is_told_first_and_more_only_when_that_is_confirmed() -> None:
    division = Division(2)
    told = division.divide({0: 1.0})
    assert list(told) == [1]
    assert 0 not in division.divide({0: 1.0})
    told = division.divide({0: 1.0})
    assert 0 not in told
    division.confirm(1, told.get(1, 0.0))
    assert division.divide({0: 1.0})[0] == pytest.approx(1.0 - division.granted[1])


def test_what_a_lost_worker_had_is_the_others() -> None:
    workers = Workers(2)
    for _ in range(4):
        workers.step({1: 1.0})
    workers.division.lost(1)
    workers.used[1] = 0.0
    workers.on_the_way.clear()
    for _ in range(4):
        workers.step({0: 1.0})
    assert workers.used[0] > 0.9


@given(
    st.integers(2, 6).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(
                st.tuples(
                    st.dictionaries(st.integers(0, count - 1), st.floats(0.0, 1.5)),
                    st.integers(0, 5),
                    st.one_of(st.none(), st.integers(0, count - 1)),
                ),
                max_size=30,
            ),
        )
    )
)
def test_the_sum_is_never_more_than_one_whatever_arrives_when(
    case: tuple[int, list[tuple[dict[int, float], int, int | None]]],
) -> None:
    count, steps = case
    workers = Workers(count)
    for pressures, arrive, dies in steps:
        workers.step(pressures, arrive)
        if dies is not None:
            workers.division.lost(dies)
            workers.used[dies] = 0.0
            workers.on_the_way = [one for one in workers.on_the_way if one[0] != dies]
