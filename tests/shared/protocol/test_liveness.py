"""Silence, seen from both sides, in virtual time."""

from __future__ import annotations

import pytest

from shared.protocol import Role, Settings, frames
from tests.shared.protocol.kit import End, Pair


def test_an_idle_tunnel_lives_by_pings() -> None:
    pair = Pair()
    for _ in range(600):
        pair.advance(0.1)
        pair.tick()
        pair.roundtrip()
    assert pair.relay.failure is pair.connector.failure is None


def test_an_idle_tunnel_pings_rarely() -> None:
    pair = Pair()
    count = 0
    for _ in range(600):
        pair.advance(0.1)
        pair.tick()
        count += pair.transfer(pair.connector, pair.relay)
        pair.roundtrip()
    assert 6 <= count <= 9


@pytest.mark.parametrize("silent", ["relay", "connector"])
def test_a_silent_peer_is_given_up_after_20_s_when_idle(silent: str) -> None:
    pair = Pair()
    survivor = pair.connector if silent == "relay" else pair.relay
    elapsed = 0.0
    while survivor.failure is None:
        pair.advance(0.1)
        elapsed += 0.1
        pair.tick()
        survivor.messages()
        assert elapsed < 21
    assert survivor.failure == "silent"
    assert elapsed == pytest.approx(20, abs=0.3)


def test_with_a_push_in_flight_the_relay_doubts_after_2_s_and_gives_up_after_5() -> None:
    pair = Pair()
    pair.advance(19)  # the silence before the push does not count
    push = pair.relay.open()
    pair.relay.messages()
    assert pair.relay.core.can_open
    suspect_at = dead_at = 0.0
    elapsed = 0.0
    while not dead_at:
        pair.advance(0.05)
        elapsed += 0.05
        pair.tick()
        if pair.relay.core.is_suspect and not suspect_at:
            suspect_at = elapsed
            assert not pair.relay.core.can_open
        if pair.relay.failure:
            dead_at = elapsed
        assert elapsed < 6
    assert ("usable",) not in pair.relay.log
    assert suspect_at == pytest.approx(2, abs=0.1)
    assert dead_at == pytest.approx(5, abs=0.1)
    assert push.log[-1][0] == "reset"


def test_a_slow_target_makes_no_tunnel_suspect() -> None:
    pair = Pair()
    pair.relay.open()
    pair.roundtrip()
    for _ in range(600):
        pair.advance(0.05)
        pair.tick()
        pair.roundtrip()
        assert not pair.relay.core.is_suspect
    assert pair.relay.failure is pair.connector.failure is None


def test_our_own_absence_is_no_silence_of_the_peer() -> None:
    pair = Pair()
    pair.relay.open()
    pair.relay.messages()
    pair.relay.now += 60
    pair.relay.core.note_gap(pair.relay.now)
    pair.relay.core.handle_deadline(pair.relay.now)
    assert pair.relay.failure is None


def test_a_peer_that_never_says_hello_is_given_up() -> None:
    end = End(Role.RELAY, Settings(hello_timeout=5.0))
    end.now += 4.9
    end.core.handle_deadline(end.now)
    assert end.failure is None
    end.now += 0.2
    end.core.handle_deadline(end.now)
    assert end.failure == "silent"


def test_a_flood_of_pings_is_answered_once() -> None:
    pair = Pair()
    from shared.protocol import frames  # next to its only use

    pair.relay.feed(*(frames.ping(token) * 1 for token in range(10_000)))
    (message,) = pair.relay.messages()
    assert [frame.type for frame in frames.parse(message)] == [frames.PONG]


def test_a_suspect_tunnel_that_is_heard_again_says_so() -> None:
    pair = Pair()
    pair.relay.open()
    pushes = pair.relay.messages()
    pair.advance(2.5)
    pair.relay.core.handle_deadline(pair.relay.now)
    assert pair.relay.core.is_suspect
    pair.connector.feed(*pushes)
    pair.connector.core.ping(pair.connector.now)
    pair.roundtrip()
    assert ("usable",) in pair.relay.log
    assert pair.relay.core.can_open


def until_given_up(pair: Pair, survivor: End, other: End) -> tuple[float, float]:
    """What `survivor` sends is lost, what `other` sends arrives; when it doubted, and when it gave up."""
    elapsed = suspect_at = 0.0
    while survivor.failure is None:
        pair.advance(0.05)
        elapsed += 0.05
        pair.tick()
        survivor.messages()
        survivor.feed(*other.messages())
        if survivor.core.is_suspect and not suspect_at:
            suspect_at = elapsed
        assert elapsed < 30
    return suspect_at, elapsed


def test_a_connector_that_still_pings_and_hears_nothing_is_given_up() -> None:
    """Packets to it are lost, packets from it arrive."""
    pair = Pair()
    pair.advance(19)
    push = pair.relay.open()
    suspect_at, dead_at = until_given_up(pair, pair.relay, pair.connector)
    assert suspect_at == pytest.approx(2, abs=0.1)
    assert dead_at == pytest.approx(5, abs=0.1)
    assert push.log[-1][0] == "reset"


def test_a_relay_that_still_asks_and_hears_nothing_is_given_up() -> None:
    pair = Pair()
    pair.relay.open()
    pair.transfer(pair.relay, pair.connector)
    _, dead_at = until_given_up(pair, pair.connector, pair.relay)
    assert dead_at == pytest.approx(5, abs=0.1)


def test_a_large_message_that_takes_long_is_a_sign_of_life() -> None:
    pair = Pair()
    pair.relay.open()
    pair.roundtrip()
    for _ in range(200):
        pair.advance(0.1)
        pair.relay.core.note_alive(pair.relay.now)
        pair.tick()
        pair.relay.messages()
        assert not pair.relay.core.is_suspect
    assert pair.relay.failure is None


def test_pings_alone_do_not_make_a_suspect_tunnel_usable() -> None:
    pair = Pair()
    pair.relay.open()
    pair.relay.messages()
    pair.advance(2.5)
    pair.tick()
    assert pair.relay.core.is_suspect
    pair.connector.core.ping(pair.connector.now)
    (ping,) = pair.connector.messages()
    pair.relay.core.note_alive(pair.relay.now)
    pair.relay.feed(ping)
    assert pair.relay.core.is_suspect
    assert not pair.relay.core.can_open
    pair.roundtrip()
    assert pair.relay.core.can_open


def test_while_answers_come_the_relay_asks_nothing() -> None:
    pair = Pair()
    pair.relay.open()
    pair.roundtrip()
    asked = 0
    for _ in range(100):
        stream = pair.relay.open().stream
        assert stream is not None
        pair.transfer(pair.relay, pair.connector)
        pair.advance(0.1)
        answering = pair.connector.pushes[-1].stream
        assert answering is not None
        answering.answer(b"200", b"", True)
        pair.transfer(pair.connector, pair.relay)
        pair.tick()
        asked += sum(frame.type == frames.PING for text in pair.relay.messages() for frame in frames.parse(text))
    assert asked == 0
