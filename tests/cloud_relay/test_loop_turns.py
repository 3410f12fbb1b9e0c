"""Turns of the loop: few at once, and none for those who have given up."""

from __future__ import annotations

from collections.abc import Callable

from cloud_relay.loop_turns import PASSED_BY, LoopTurns

FLOOD, OTHER = "192.0.2.1", "198.51.100.1"


class Loop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.turns = 0

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        self.turns += 1
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class World:
    def __init__(self, at_once: int = 1) -> None:
        self.loop = Loop()
        self.turns = LoopTurns(self.loop, at_once)
        self.served: list[str] = []

    def join(self, name: str, source: str = FLOOD) -> One:
        one = One(self, name)
        self.turns.join(source, one)
        return one

    @property
    def waiting(self) -> int:
        return len(self.turns._waiting)


class One:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.wants_turn = True
        self.ends: One | None = None

    def take_turn(self) -> None:
        assert self.wants_turn
        self.world.served.append(self.name)
        if self.ends is not None:
            self.ends.wants_turn = False


def test_few_in_a_turn_and_networks_in_turn() -> None:
    world = World(at_once=2)
    for number in range(4):
        world.join(f"a{number}")
    world.join("b", OTHER)
    assert world.served == [], "not from within `join`"
    world.loop.turn()
    assert world.served == ["a0", "b"]
    world.loop.turn()
    world.loop.turn()
    assert world.served == ["a0", "b", "a1", "a2", "a3"]
    assert world.loop.soon == [], "nothing is asked of the loop while nobody waits"
    world.join("c")
    world.loop.turn()
    assert world.served[-1] == "c"


def test_those_who_have_given_up_take_nobodys_turn() -> None:
    world = World()
    for number in range(PASSED_BY - 1):
        world.join(f"gone{number}").wants_turn = False
    world.join("here")
    world.loop.turn()
    assert world.served == ["here"]


def test_more_who_come_and_give_up_than_there_are_turns_do_not_pile_up() -> None:
    world = World()
    for _ in range(200):
        for _ in range(16):
            world.join("gone").wants_turn = False
        world.loop.turn()
        assert world.waiting == 0
    for _ in range(5 * PASSED_BY):
        world.join("gone").wants_turn = False
    world.loop.turn()
    assert world.waiting == 4 * PASSED_BY, "nor does the loop stop for a great many"


def test_one_that_another_ends_in_the_same_turn_has_none() -> None:
    world = World(at_once=2)
    first = world.join("first")
    first.ends = world.join("second")
    world.loop.turn()
    assert world.served == ["first"]
