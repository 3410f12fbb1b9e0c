"""Who gets in when connections run short, and who has to go for that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.guests import FOR_EVER, LOOKED_AT, PATIENCE, Guests


class One:
    def __init__(self, source: str, idle_since: float) -> None:
        self.source = source
        self.idle_since = idle_since

    def __repr__(self) -> str:
        return f"{self.source} since {self.idle_since}"


class House:
    """A listener in short; `now` only moves on."""

    def __init__(self, limit: int, per_source: int = 1 << 20) -> None:
        self.here: list[One] = []
        self.turned_out: list[One] = []
        self.now = 100.0
        self.guests: Guests[One] = Guests(self.turn_out)
        self.guests.resize(limit, per_source)

    def turn_out(self, one: One) -> None:
        self.turned_out.append(one)
        self.leave(one)

    def come(self, source: str, idle_since: float = FOR_EVER) -> One | None:
        if not self.guests.let_in(source, self.now):
            return None
        one = One(source, idle_since)
        self.here.append(one)
        self.guests.join(one)
        return one

    def leave(self, one: One) -> None:
        self.here.remove(one)
        self.guests.leave(one)

    def crowd(self, network: int, count: int, idle_since: float = FOR_EVER) -> int:
        return sum(self.come(f"10.0.{network}.{n % 250}", idle_since) is not None for n in range(count))


def test_a_host_with_many_ipv6_addresses_is_one_source() -> None:
    house = House(100, per_source=2)
    assert [house.come(f"2001:db8::{n}") is not None for n in range(3)] == [True, True, False]
    assert house.come("2001:db8:0:1::1") is not None
    for one in list(house.here):
        house.leave(one)
    assert repr(house.guests) == "<Guests 0 of 100 from 0 networks>"


def test_while_there_is_plenty_one_network_may_have_it() -> None:
    assert House(800).crowd(1, 700) == 700


def test_a_network_that_has_its_share_gets_no_more_and_others_do() -> None:
    house = House(800)
    assert house.crowd(1, 800) == 700
    assert house.crowd(2, 20) == 20
    assert house.crowd(1, 1) == 0
    assert house.turned_out == []


def test_a_network_that_has_its_share_turns_out_its_own_that_are_idle() -> None:
    house = House(80)
    house.crowd(1, 69)
    idle = house.come("10.0.1.7", idle_since=house.now - 5)
    for _ in range(70 // LOOKED_AT + 1):
        if house.come("10.0.1.8") is not None:
            break
    assert house.turned_out == [idle]
    assert house.crowd(1, 10) == 0, "nobody else is idle"


def test_a_newcomer_of_another_network_is_let_in_for_an_idle_one_of_the_largest() -> None:
    house = House(80)
    house.crowd(1, 70, idle_since=90.0)
    assert house.crowd(2, 40) == 27, "a third of all"
    assert {one.source[:7] for one in house.turned_out} == {"10.0.1."}
    assert len(house.here) <= 80
    assert house.crowd(2, 1) == 0, "its network has its share now, and none of that is idle"


def test_the_idlest_goes_and_who_has_just_become_idle_stays() -> None:
    house = House(16)
    since = [house.now - seconds for seconds in (3, 9, 5, PATIENCE / 2)]
    guests = [house.come("10.0.1.1", at) for at in since]
    house.crowd(1, 10)
    assert house.come("10.0.1.2") is not None
    assert house.come("10.0.1.2") is not None
    assert house.come("10.0.1.2") is not None
    assert house.turned_out == [guests[1], guests[2], guests[0]]
    assert house.come("10.0.1.2") is None


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_few_places(limit: int) -> None:
    house = House(limit)
    assert house.crowd(1, 10) == limit
    for one in house.here:
        one.idle_since = 1.0
    assert house.crowd(2, 1) == min(limit, 1)


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "come", "leave", "rest"]), st.integers(0, 4), st.integers(0, 300)), max_size=150
)


@given(st.integers(0, 40), STEPS)
def test_no_more_than_the_limit_and_all_are_counted(limit: int, steps: list[tuple[str, int, int]]) -> None:
    house = House(limit, per_source=12)
    for what, network, number in steps:
        house.now += 0.5
        largest: dict[str, int] = {}
        for one in house.here:
            key = one.source.rpartition(".")[0]
            largest[key] = largest.get(key, 0) + 1
        turned_out = len(house.turned_out)
        if what == "come":
            house.come(f"10.0.{network}.{number % 5}")
        elif house.here:
            one = house.here[number % len(house.here)]
            if what == "leave":
                house.leave(one)
            else:
                one.idle_since = house.now
        for one in house.turned_out[turned_out:]:
            assert one.idle_since <= house.now - PATIENCE
            mine = largest[one.source.rpartition(".")[0]]
            assert mine == max(largest.values()) or one.source.startswith(f"10.0.{network}.")
        assert len(house.here) == len(house.guests) <= limit
    for one in list(house.here):
        house.leave(one)
    assert repr(house.guests) == f"<Guests 0 of {limit} from 0 networks>"
