"""What is shown as a tunnel's round trip is what a PING and its PONG take, whatever else is slow to come back."""

from __future__ import annotations

import pytest

from shared.protocol.inbound import RELAY_MEASURES_EVERY
from tests.shared.protocol.kit import Pair

PATH = 0.02


def exchange(pair: Pair) -> None:
    """Until nobody has anything to say, over a path that takes PATH both ways together."""
    while True:
        onward = pair.relay.messages()
        back = pair.connector.messages()
        if not onward and not back:
            return
        pair.advance(PATH / 2)
        pair.connector.feed(*onward)
        pair.relay.feed(*back)


def live(pair: Pair, seconds: float) -> None:
    """With one small push a second."""
    for _ in range(int(seconds)):
        pair.relay.open(body=bytes(2048))
        exchange(pair)
        pair.advance(1.0)
        pair.tick()
        exchange(pair)


@pytest.fixture
def pair() -> Pair:
    pair = Pair(greet=False)
    exchange(pair)
    return pair


def test_a_tunnel_with_little_traffic_is_not_slow(pair: Pair) -> None:
    pair.relay.core.ping(pair.relay.now)
    exchange(pair)
    live(pair, 40)
    window = pair.relay.core.window.round_trip
    assert window > 5, "credit for small pushes is collected: that is no round trip"
    assert pair.relay.core.clock.round_trip == pytest.approx(PATH, abs=1e-5)
    assert pair.connector.core.clock.round_trip == pytest.approx(PATH, abs=1e-5)


def test_the_relay_measures_by_itself(pair: Pair) -> None:
    """Even where nobody told it to ping: the connector's own pings remind it."""
    assert pair.relay.core.clock.round_trip == float("inf")
    live(pair, RELAY_MEASURES_EVERY + 40)
    assert pair.relay.core.clock.round_trip == pytest.approx(PATH, abs=1e-5)


def test_the_relay_measures_an_idle_tunnel_anew(pair: Pair) -> None:
    measured = []
    for _ in range(200):
        pair.advance(1.0)
        pair.tick()
        exchange(pair)
        measured.append(pair.relay.core.clock.sampled_at)
    assert len(set(measured)) in range(3, 5)  # the first time never, then every minute or so
    assert pair.relay.now - measured[-1] < 2 * RELAY_MEASURES_EVERY


def test_a_flood_of_pings_makes_the_relay_ask_once(pair: Pair) -> None:
    pair.advance(RELAY_MEASURES_EVERY + 1)
    for _ in range(1000):
        pair.connector.core.ping(pair.connector.now)
        pair.transfer(pair.connector, pair.relay)
    (message,) = pair.relay.messages()
    assert len(message) < 100
