"""Who is asked to renew when the CA has been switched, and how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cloud_relay.identity.records import Stage
from cloud_relay.identity.reissue import EVERY, Reissue

C1, C2, C3 = (("acme", "walldorf", name) for name in ("c1", "c2", "c3"))


class Ground:
    """A book of two generations, and connectors with certificates of either."""

    def __init__(self) -> None:
        of = {"old": 1, "new": 2}
        self.book = SimpleNamespace(
            stage=Stage.PUBLISHED, active=1,
            certificates={name: SimpleNamespace(generation=number) for name, number in of.items()},
        )  # fmt: skip
        self.sessions = [(C1, "old"), (C1, "old"), (C2, "new"), (C3, "unknown")]
        self.hinted: list[tuple[Any, float]] = []
        self.now = 1000.0
        self.reissue = Reissue(lambda: cast(Any, self.book), lambda: self.sessions, self.hint, lambda: self.now)

    def hint(self, key: Any, within: float) -> int:
        self.hinted.append((key, within))
        return 1

    def look(self) -> list[tuple[Any, float]]:
        self.hinted = []
        self.reissue.look()
        return self.hinted


def test_only_after_the_switch_and_only_those_of_the_old_ca() -> None:
    ground = Ground()
    assert ground.look() == []
    ground.book.stage, ground.book.active = Stage.SWITCHED, 2
    assert ground.look() == [(C1, 10.0)]
    assert ground.look() == []
    ground.now += EVERY
    ground.sessions = [(C1, "new"), (C2, "old")]
    assert ground.look() == [(C2, 10.0)]
    ground.book.stage = Stage.STEADY
    assert ground.look() == []


def test_a_roll_back_asks_for_those_of_the_ca_that_is_no_more() -> None:
    ground = Ground()
    ground.book.stage, ground.book.active = Stage.SWITCHED, 2
    ground.look()
    ground.book.active = 1
    assert ground.look() == [(C2, 10.0)]


def test_many_are_spread() -> None:
    ground = Ground()
    ground.book.stage, ground.book.active = Stage.SWITCHED, 2
    ground.sessions = [(("acme", "walldorf", f"c{number}"), "old") for number in range(6000)]
    assert {within for _, within in ground.look()} == {600.0}
