"""Places that run short, against a model of what an equal share means."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.places import LAST, Holding, Places

LIMIT = 64
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 40)), max_size=80)


class World:
    def __init__(self, limit: int, parties: int) -> None:
        self.places = Places(limit, parties)
        self.parties = [Holding() for _ in range(parties)]

    def take(self, party: int, times: int = 1) -> int:
        """How many of `times` it gets."""
        got = 0
        while got < times and self.places.may_take(self.parties[party]):
            self.places.take(self.parties[party])
            got += 1
        return got

    def give_back(self, party: int, times: int = 1) -> None:
        for _ in range(min(times, self.parties[party].held)):
            self.places.give_back(self.parties[party])

    @property
    def held(self) -> list[int]:
        return [party.held for party in self.parties]


@given(st.integers(0, LIMIT), st.integers(1, 6), STEPS)
def test_counts_hold_and_nobody_goes_without(limit: int, parties: int, steps: list[tuple[bool, int, int]]) -> None:
    world = World(limit, parties)
    for takes, party, times in steps:
        party %= parties
        if takes:
            before, short = world.held, world.places.is_short
            got = world.take(party, times)
            if not short and before[party] + times <= limit - limit // LAST - sum(before) + before[party]:
                assert got == times  # while there are plenty, anybody may have some
        else:
            world.give_back(party, times)
        held = world.held
        assert sum(held) == world.places.held <= limit
        assert world.places.active == sum(one > 0 for one in held)
    if limit >= LAST * 20:  # whoever has none finds one, whatever the others did
        assert all(world.places.may_take(party) for party in world.parties if not party.held)


@given(st.integers(1600, 3000), st.integers(2, 7))
def test_whoever_comes_after_a_flood_finds_a_place_and_then_its_share(limit: int, parties: int) -> None:
    world = World(limit, parties)
    assert world.take(0, limit) == world.places.mark  # the flood stops at the last eighth, …
    for party in range(1, parties):
        assert world.take(party, limit) > 0  # … of which each of the others gets some, …
    for _ in range(limit):  # … and what the flood gives back, they get, although it asks first.
        world.give_back(0)
        world.take(0)
        for party in range(1, parties):
            world.take(party)
    assert max(world.held) - min(world.held) <= 1, world.held


def test_what_a_flood_that_gives_nothing_back_leaves_to_others() -> None:
    """As docs/senders/quotas.md says: a sixteenth, and a third of the rest."""
    world = World(1600, 6)
    assert [world.take(party, 1600) for party in range(5)] == [1400, 100, 34, 22, 15]


def test_one_who_cannot_have_company_may_have_all() -> None:
    world = World(100, 1)
    assert world.take(0, 200) == 100
    world.places.resize(100, 2)
    world.give_back(0)
    assert not world.places.may_take(world.parties[0])
    assert world.places.may_take(Holding())
    assert repr(world.places) == "<Places 99 of 100 held by 1>"
    assert repr(world.parties[0]) == "<Holding 99>"


def test_few_places_are_had_by_whoever_comes() -> None:
    world = World(LAST - 1, 3)
    assert world.take(0, 100) == LAST - 1
    assert world.take(1) == 0


def test_who_has_less_than_others_may_have_more() -> None:
    world = World(800, 4)
    assert (world.take(0, 600), world.take(1, 100)) == (600, 100)
    assert world.places.is_short
    assert not world.places.may_take(world.parties[0])
    assert world.take(1, 800) == 50  # down to the last sixteenth
    assert world.take(2, 800) == 17  # up to half of what is free then
    assert world.take(1, 800) == 0
    world.give_back(0, 10)
    assert (world.take(0, 10), world.take(1, 10), world.take(2, 10)) == (0, 0, 3)
    world.give_back(0, 90)
    assert (world.take(0, 10), world.take(1, 100), world.take(2, 100)) == (10, 50, 20)  # one more may come
