"""What is counted and told of tries, and what of them speaks for or against a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import post


class Witness:
    """What a push says about targets."""

    def __init__(self) -> None:
        self.doubts: dict[Any, Any] = {}
        self.told: list[tuple[str, ...]] = []

    def failed(self, key: tuple[str, str, str], connector: str, code: str, now: float) -> None:
        self.told.append((*key, connector, code))

    def delivered(self, key: tuple[str, str, str], connector: str, now: float) -> None:
        self.told.append((*key, connector, "delivered"))


def watch(relay: Relay) -> Witness:
    witness = Witness()
    relay.ingress.context = replace(relay.context, health=witness)
    return witness


def refuse(relay: Relay, code: str = "target-unreachable") -> None:
    relay.stream.fail(code, refused=True)


def lose(relay: Relay) -> None:
    relay.stream.fail("target-lost", refused=False)


def spend(relay: Relay) -> None:
    while relay.ingress.retries.take(relay.clock.now):
        pass
    refuse(relay)


def late(relay: Relay) -> None:
    relay.clock.now += 60.0
    refuse(relay)


@pytest.mark.parametrize(
    ("connectors", "size", "fail", "counted"),
    [
        (2, 3, refuse, ("target-unreachable", "again")),
        (1, 3, refuse, ("target-unreachable", "no-other")),
        (2, 3, lose, ("target-lost", "ambiguous")),
        (2, 3, lambda relay: refuse(relay, "path-not-allowed"), ("path-not-allowed", "final")),
        (2, 70_000, refuse, ("target-unreachable", "body-gone")),
        (2, 3, late, ("target-unreachable", "time-spent")),
        (2, 3, spend, ("target-unreachable", "budget-spent")),
    ],
)
def test_what_came_then(connectors: int, size: int, fail: Callable[[Relay], None], counted: tuple[str, str]) -> None:
    relay = Relay(connectors=connectors)
    relay.connect().send(post(b"x" * size))
    fail(relay)
    assert relay.route_metrics.failed_tries == {counted: 1}
    lines = [line for line in relay.access_log.lines if line.get("kind") == "try"]
    assert [(line["code"], line["then"]) for line in lines] == ([counted] if counted[1] == "again" else [])
    if counted[1] == "again":
        relay.stream.answer(200)
    relay.assert_nothing_left()


def test_all_three() -> None:
    relay = Relay(connectors=5)
    relay.connect().send(post(b"abc"))
    for _ in range(3):
        refuse(relay)
    assert relay.route_metrics.failed_tries == {
        ("target-unreachable", "again"): 2, ("target-unreachable", "tries-spent"): 1,
    }  # fmt: skip
    assert relay.route_metrics.mended == 0
    assert [line["attempt"] for line in relay.access_log.lines] == [1, 2, 3]
    relay.assert_nothing_left()


def test_held_until_a_connector_is_back() -> None:
    relay = Relay()
    relay.connect().send(post(b"abc"))
    relay.registry.sessions.pop()
    refuse(relay, "connector-draining")
    assert relay.route_metrics.failed_tries == {("connector-draining", "held"): 1}
    relay.attach("c1-again")
    relay.stream.answer(200)
    assert relay.route_metrics.mended == 1
    relay.assert_nothing_left()


def test_each_try_that_failed_is_told_with_its_connector() -> None:
    relay = Relay(connectors=2)
    witness = watch(relay)
    relay.connect().send(post(b"abc"))
    refuse(relay)
    refuse(relay)
    assert [one[3:] for one in witness.told] == [("c1", "target-unreachable"), ("c2", "target-unreachable")]
    assert {one[:3] for one in witness.told} == {("acme", "dc1", "prom")}


def test_a_target_that_lets_a_push_wait_past_its_deadline() -> None:
    relay = Relay(timeout=5.0)
    witness = watch(relay)
    relay.connect().send(post(b"abc"))
    relay.sleep(6)
    assert [one[3:] for one in witness.told] == [("c1", "deadline-exceeded")]
    assert relay.route_metrics.failed_tries == {("deadline-exceeded", "time-spent"): 1}
    relay.assert_nothing_left()


def test_a_sender_that_does_not_send_speaks_against_nobody() -> None:
    relay = Relay(timeout=5.0)
    witness = watch(relay)
    relay.connect().send(post(b"", content_length="1000") + b"x")
    relay.sleep(60)
    assert witness.told == []
    relay.assert_nothing_left()


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_answers_are_told_only_where_there_is_a_doubt(status: int) -> None:
    relay = Relay()
    witness = watch(relay)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.answer(status)
    assert witness.told == []
    witness.doubts["any"] = "thing"
    sender.send(post(b"abc"))
    relay.stream.answer(status)
    assert witness.told == [("acme", "dc1", "prom", "c1", "delivered")]
    relay.assert_nothing_left()
