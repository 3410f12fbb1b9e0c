"""Where a push's time went at the relay, and what became of pushes that were let in."""

from __future__ import annotations

import pytest

from shared.errors import FAULTS
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, post


def test_what_passes_before_the_tunnel_is_the_ingresses():
    """Queue and hold are told apart, and both are in the sum."""
    relay = Relay(max_in_flight=1)
    first, second = relay.connect(), relay.connect()
    first.send(post(b"x"))
    second.send(post(b"x"))
    relay.sleep(0.25)
    relay.registry.sessions.clear()  # it takes no more, and serves on
    relay.stream.answer(200)
    relay.sleep(0.5)  # the second one's turn has come, and there is no connector
    relay.attach()
    relay.sleep(0.125)
    relay.stream.answer(200)
    relay.clock.run()
    assert [side.answers()[0][0] for side in (first, second)] == [200, 200]
    metrics = relay.route_metrics
    assert sum(metrics.queued.counts) == 1
    assert metrics.queued.sum == pytest.approx(0.25)
    assert metrics.ingress_seconds == pytest.approx(0.25 + 0.5)
    assert (metrics.accepted, metrics.delivered) == (2, 2)
    line = relay.access_log.lines[-1]
    assert (line["queued_ms"], line["waited_ms"]) == (pytest.approx(250), pytest.approx(500))


def test_a_turn_that_never_came_was_waited_for_too():
    relay = Relay(max_in_flight=1)
    relay.connect().send(post(b"x"))
    late = relay.connect()
    late.send(post(b"x"))
    relay.sleep(5.0)
    assert code_of(late.last) == "quota-exceeded"
    assert relay.route_metrics.queued.sum == pytest.approx(3.0)
    relay.stream.answer(200)
    relay.clock.run()
    assert (relay.route_metrics.accepted, relay.route_metrics.delivered) == (1, 1)


@pytest.mark.parametrize(("status", "delivered"), [(200, 1), (204, 1), (302, 0), (404, 0), (503, 0)])
def test_delivered_is_what_the_target_took(status: int, delivered: int):
    relay = Relay()
    relay.connect().send(post(b"x"))
    relay.stream.answer(status)
    relay.clock.run()
    assert (relay.route_metrics.accepted, relay.route_metrics.delivered) == (1, delivered)


def test_a_push_that_no_connector_came_for_was_accepted_and_not_delivered():
    relay = Relay(connectors=0)
    side = relay.connect()
    side.send(post(b"x"))
    relay.sleep(4.0)
    assert code_of(side.last) == "no-connector"
    assert (relay.route_metrics.accepted, relay.route_metrics.delivered) == (1, 0)
    assert relay.route_metrics.ingress_seconds == 0.0, "it never came to a tunnel"


def test_what_is_refused_at_the_door_was_not_accepted():
    relay = Relay()
    relay.authenticator.verdict = FAULTS["unauthenticated"]
    relay.connect().send(post(b"x"))
    assert relay.route_metrics.pushes == 1
    assert relay.route_metrics.accepted == 0
