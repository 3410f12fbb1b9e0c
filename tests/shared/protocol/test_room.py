"""A tunnel that is full, and then has places again."""

from __future__ import annotations

import pytest

from shared.errors import LocalFault
from shared.protocol import Settings
from tests.shared.protocol.kit import Pair

ROOM = ("room",)


def rooms(pair: Pair) -> int:
    return pair.relay.log.count(ROOM)


def finish(pair: Pair, count: int) -> None:
    for _ in range(count):
        recorder = pair.connector.pushes.pop()
        assert recorder.stream is not None
        recorder.stream.answer(b"200", b"", end=True)
        pair.roundtrip()


def test_each_place_is_told_of_until_nobody_waits() -> None:
    pair = Pair(Settings(max_streams=8))
    pair.relay.has_waiters = True
    for _ in range(7):
        pair.relay.open()
    pair.roundtrip()
    finish(pair, 1)
    assert rooms(pair) == 0, "it was never full"
    for _ in range(2):
        pair.relay.open()
    pair.roundtrip()
    assert not pair.relay.core.can_open
    with pytest.raises(LocalFault):
        pair.relay.open()
    finish(pair, 2)
    assert rooms(pair) == 2
    finish(pair, 4)
    assert rooms(pair) == 6
    pair.relay.has_waiters = False
    finish(pair, 2)
    assert rooms(pair) == 7


def test_a_place_that_is_taken_at_once_is_told_of_again() -> None:
    pair = Pair(Settings(max_streams=1))
    for number in range(4):
        pair.relay.open()
        pair.roundtrip()
        finish(pair, 1)
        assert rooms(pair) == number + 1


def test_a_tunnel_that_takes_no_pushes_offers_no_place() -> None:
    pair = Pair(Settings(max_streams=2))
    for _ in range(2):
        pair.relay.open()
    pair.roundtrip()
    pair.relay.core.drain(10.0, pair.relay.now)
    finish(pair, 2)
    assert rooms(pair) == 0


def test_a_reset_makes_a_place_too() -> None:
    pair = Pair(Settings(max_streams=2))
    for _ in range(2):
        pair.relay.open()
    pair.roundtrip()
    recorder = pair.connector.pushes.pop()
    assert recorder.stream is not None
    recorder.stream.reset(108)
    pair.roundtrip()
    assert rooms(pair) == 1
