"""What a push is answered before it is on a tunnel: every such row of the table of statuses, and holding."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cloud_relay.health import RelayState
from shared.errors import FAULTS
from tests.cloud_relay.ingress.judge import judge, refused
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, post


@pytest.mark.parametrize(
    ("host", "path", "code"),
    [
        ("elsewhere.example.com", "/metrics", "unknown-host"),
        ("push.example.com", "/metricsx", "no-such-route"),
        ("push.example.com", "/", "no-such-route"),
    ],
)
def test_no_route(host, path, code):
    relay = Relay()
    assert code_of(refused(relay, post(b"x", path, host=host))) == code
    assert relay.metrics.faults == {code: 1}


@pytest.mark.parametrize("code", ["unauthenticated", "sender-not-allowed", "cannot-judge-credential", "overloaded"])
def test_the_authenticators_verdict(code):
    relay = Relay()
    relay.authenticator.verdict = FAULTS[code]
    answer = refused(relay)
    assert code_of(answer) == code
    assert answer.headers.get("www-authenticate") == ('Basic realm="acme"' if code == "unauthenticated" else None)
    assert relay.streams == []


@pytest.mark.parametrize("quota", ["quota-exceeded", "quota-exceeded-try-later"])
def test_over_the_quota(quota):
    relay = Relay(quota=quota, max_in_flight=1)
    first, second = relay.connect(), relay.connect()
    first.send(post(b"x"))
    second.send(post(b"x"))
    assert second.received == b"", "it waits for its turn"
    relay.sleep(3.1)
    assert code_of(second.last) == quota
    assert relay.in_flight == (1, 1, 1)
    relay.stream.answer(200)
    relay.assert_nothing_left()
    second.send(post(b"x"))
    relay.stream.answer(200)
    assert [status for status, _ in second.answers()] == [FAULTS[quota].status, 200]


def test_the_process_is_full():
    relay = Relay()
    relay.limits.resize(0, 1)
    assert code_of(refused(relay)) == "overloaded"


def test_a_content_length_over_the_limit():
    relay = Relay(max_body=10)
    assert code_of(refused(relay, post(b"", content_length="11"))) == "body-too-large"
    assert relay.streams == []


@pytest.mark.parametrize("state", [RelayState.STARTING, RelayState.STOPPED])
def test_starting_and_stopping(state):
    relay = Relay()
    relay.ingress.state = state
    assert code_of(refused(relay)) == "starting"


def test_one_that_cannot_read_who_is_switched_off_judges_nobody_and_keeps_no_connection():
    relay = Relay()
    relay.ingress.state = RelayState.BLIND
    sender = relay.connect()
    sender.send(post(b"x"))
    assert code_of(sender.last) == "cannot-judge-credential"
    assert sender.last.status == 503
    assert sender.last.headers["connection"] == "close"
    assert relay.streams == []


# A hash that takes long.


def slow_verdict(relay: Relay) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.Future(loop=cast(Any, relay.clock))
    relay.authenticator.verdict = future
    return future


def test_a_push_waits_for_a_slow_hash():
    relay = Relay()
    future = slow_verdict(relay)
    sender = relay.connect()
    sender.send(post(b"abc"))
    assert relay.streams == []
    assert relay.budget.used == 3
    future.set_result(relay.sender)
    relay.clock.run()
    assert relay.stream.first == (b"abc", True)
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_while_it_waits_its_body_is_taken_in_bounded():
    relay = Relay()
    future = slow_verdict(relay)
    sender = relay.connect()
    sender.send(post(b"x" * 200_000), by=10_000)
    assert sender.transport.is_paused
    assert 64 << 10 <= relay.budget.used <= (64 << 10) + 10_000
    future.set_result(relay.sender)
    relay.clock.run()
    sender.flush()
    assert relay.stream.body == b"x" * 200_000
    relay.stream.answer(200)
    relay.assert_nothing_left()


@pytest.mark.parametrize("how", ["fault", "error", "cancelled", "time"])
def test_a_slow_hash_that_says_no(how):
    relay = Relay()
    future = slow_verdict(relay)
    sender = relay.connect()
    sender.send(post(b"abc"))
    if how == "fault":
        future.set_result(FAULTS["unauthenticated"])
    elif how == "error":
        future.set_exception(RuntimeError("pool is gone"))
    elif how == "cancelled":
        future.cancel()
    else:
        relay.sleep(20.1)
        assert future.cancelled()
    relay.clock.run()
    assert code_of(judge(relay, sender)) == ("unauthenticated" if how == "fault" else "cannot-judge-credential")


def test_the_sender_leaves_before_the_verdict():
    relay = Relay()
    future = slow_verdict(relay)
    sender = relay.connect()
    sender.send(post(b"abc"))
    sender.vanish()
    assert future.cancelled()
    relay.assert_nothing_left()
    relay.assert_all_closed()


# Holding.


def test_a_push_is_held_until_a_connector_comes():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.sleep(2.5)
    assert sender.answers() == []
    relay.attach()
    assert relay.stream.first == (b"abc", True)
    assert relay.stream.deadline == 1020.0
    relay.stream.answer(200)
    assert relay.access_log.lines[0]["waited_ms"] == 2500.0
    relay.assert_nothing_left()


def test_but_not_for_ever():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.sleep(2.9)
    assert sender.answers() == []
    relay.sleep(0.2)
    assert code_of(judge(relay, sender)) == "no-connector"
    assert relay.registry.waiters == []


def test_not_at_all_if_the_route_says_so():
    relay = Relay(connectors=0, hold=0.0)
    assert code_of(refused(relay)) == "no-connector"


def test_a_sender_that_leaves_while_held():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(post(b"abc"))
    sender.hang_up()
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_a_session_that_is_gone_again_before_it_can_be_chosen():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.sleep(1)
    waiters, relay.registry.waiters = relay.registry.waiters, []
    for waiter in waiters:
        waiter.callback()
    assert len(relay.registry.waiters) == 1
    relay.sleep(2.1)
    assert code_of(judge(relay, sender)) == "no-connector"


def test_a_suspect_tunnel_that_is_heard_again_takes_what_is_held():
    relay = Relay()
    session = relay.registry.sessions[0]
    session.is_usable = False
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.sleep(1)
    session.is_usable = True
    relay.registry.wake()
    assert relay.stream.first == (b"abc", True)
    relay.stream.answer(200)
    assert relay.access_log.lines[0]["waited_ms"] == 1000.0
    relay.assert_nothing_left()


def test_a_tunnel_that_was_full_is_asked_once_more_at_the_end():
    relay = Relay()
    session = relay.registry.sessions[0]
    session.is_usable = False
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.sleep(2.9)
    session.is_usable = True
    assert relay.streams == []
    relay.sleep(0.2)
    relay.stream.answer(200)
    assert sender.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_waking_takes_in_no_more_than_there_is_room_for():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(post(b"x" * 200_000), by=10_000)
    assert sender.transport.is_paused
    held = relay.budget.used
    for _ in range(5):
        relay.registry.wake()
        sender.flush()
    assert sender.transport.is_paused
    assert relay.budget.used == held
    relay.attach()
    sender.flush()
    assert relay.stream.body == b"x" * 200_000
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_held_bodies_do_not_use_up_the_memory():
    relay = Relay(connectors=0, budget=1000)
    first, second = relay.connect(), relay.connect()
    first.send(post(b"x" * 400))
    second.send(post(b"x" * 400))
    assert code_of(second.last) == "overloaded"
    assert relay.budget.used == 400
    relay.sleep(4)
    assert code_of(first.last) == "no-connector"
    relay.assert_nothing_left()


def test_many_held_pushes_go_at_once():
    relay = Relay(connectors=0, max_in_flight=0)
    senders = [relay.connect() for _ in range(200)]
    for sender in senders:
        sender.send(post(b"x"))
    relay.attach()
    assert len(relay.streams) == 200
    for stream in relay.streams:
        stream.answer(204)
    assert all(sender.answers() == [(204, b"")] for sender in senders)
    relay.assert_nothing_left()
