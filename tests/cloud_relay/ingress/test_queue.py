"""Pushes over a quota wait for their turn: bursts are absorbed, senders take turns, and what cannot wait is refused."""

from __future__ import annotations

import itertools

import pytest

from cloud_relay.gates import Gate
from cloud_relay.ingress.context import IngressSettings
from cloud_relay.metrics import SenderMetrics
from cloud_relay.senders import Sender
from tests.cloud_relay.ingress.kit import Relay, SenderSide
from tests.cloud_relay.ingress.wire import code_of, post


def second_sender(relay: Relay, name: str = "ibp", max_in_flight: int = 0) -> Sender:
    sender = Sender("acme", name, Gate(max_in_flight), SenderMetrics("acme", name))
    relay.route.senders |= {sender}
    return sender


def push(relay: Relay, sender: Sender | None = None, body: bytes = b"x") -> SenderSide:
    """One push of a sender, over a connection of its own."""
    relay.authenticator.verdict = sender or relay.sender
    side = relay.connect()
    side.send(post(body))
    return side


def test_a_burst_is_absorbed():
    """4,000 pushes at once, each taking 10 ms, of which 64 may be under way: none is refused."""
    relay = Relay(max_in_flight=64)
    sides = [push(relay) for _ in range(4000)]
    assert len(relay.streams) == 64
    assert relay.ingress.queue.waiting == 4000 - 64
    for _ in range(4000 // 64 + 1):
        relay.sleep(0.01)
        for stream in [one for one in relay.streams if not one.is_over]:
            stream.answer(200)
        relay.clock.run()
        assert relay.in_flight[1] <= 64
    assert [side.answers()[0][0] for side in sides] == [200] * 4000
    assert relay.clock.now < 1000 + 1.0
    assert repr(relay.ingress.queue) == "<FairQueue 0 waiting in 0 lines>"
    relay.assert_nothing_left()


def test_senders_take_turns_at_the_routes_gate():
    relay = Relay(max_in_flight=2)
    relay.sender.gate.configure(0, 0.0, 0.0)
    quiet = second_sender(relay)
    flood = [push(relay) for _ in range(50)]
    late = [push(relay, quiet) for _ in range(2)]
    order = []
    for _ in itertools.count():
        waiting = [one for one in relay.streams if not one.is_over]
        if not waiting:
            break
        order.append(waiting[0].head.sender)
        waiting[0].answer(200)
        relay.clock.run()
    assert order[:8].count("ibp") == 2, "one that floods waits behind itself"
    assert all(side.answers() == [(200, b"")] for side in flood + late)
    relay.assert_nothing_left()


def test_who_is_under_its_own_quota_meets_no_queue():
    relay = Relay(max_in_flight=64)
    relay.sender.gate.configure(1, 0.0, 0.0)
    quiet = second_sender(relay)
    for _ in range(20):
        push(relay)
    before = len(relay.streams)
    push(relay, quiet)
    assert len(relay.streams) == before + 1
    assert relay.stream.head.sender == "ibp"


def test_a_rate_lets_in_as_time_goes_by():
    relay = Relay()
    relay.sender.gate.configure(0, 10.0, 1.0)
    sides = [push(relay) for _ in range(5)]
    opened = []
    for _ in range(50):
        opened.append(len(relay.streams))
        relay.sleep(0.01)
    assert opened[0] == 1
    assert opened[-1] == 5
    assert [opened.count(n) for n in range(1, 5)] == pytest.approx([10] * 4, abs=1)
    for stream in relay.streams:
        stream.answer(200)
    assert all(side.answers()[0][0] == 200 for side in sides)
    relay.assert_nothing_left()


def test_bytes_are_counted_as_they_arrive():
    relay = Relay()
    relay.sender.gate.configure(0, 0.0, 0.0, 1000.0, 500.0)
    first = relay.connect()
    first.send(b"POST /metrics HTTP/1.1\r\nHost: push.example.com\r\nContent-Length: 1500\r\n\r\n" + b"a" * 500)
    first.send(b"a" * 1000)
    assert relay.stream.ended, "what is under way goes on"
    second = push(relay)
    assert len(relay.streams) == 1
    relay.sleep(0.9)
    assert len(relay.streams) == 1
    relay.sleep(0.2)
    assert len(relay.streams) == 2, "1000 bytes over, at 1000 a second"
    for stream in relay.streams:
        stream.answer(200)
    assert second.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_a_tenants_gate_counts_all_its_senders():
    relay = Relay()
    relay.route.shared = Gate(1)
    other = second_sender(relay)
    first, second = push(relay), push(relay, other)
    assert len(relay.streams) == 1
    relay.stream.answer(200)
    relay.clock.run()
    assert len(relay.streams) == 2
    relay.stream.answer(200)
    assert (first.answers(), second.answers()) == ([(200, b"")], [(200, b"")])
    assert relay.route.shared.in_flight == 0
    relay.assert_nothing_left()


def test_who_waits_too_long_is_refused_and_who_hangs_up_gives_its_place_up():
    relay = Relay(max_in_flight=1)
    push(relay)
    gone, late, next_one = push(relay), push(relay), push(relay)
    gone.vanish()
    assert relay.ingress.queue.waiting == 2
    relay.sleep(3.1)
    assert [code_of(side.last) for side in (late, next_one)] == ["quota-exceeded"] * 2
    assert int(late.last.headers["retry-after"]) >= 1
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_the_line_is_bounded_and_no_sender_has_more_of_it_than_is_free():
    relay = Relay(max_in_flight=1, settings=IngressSettings(queue=10))
    other = second_sender(relay)
    push(relay)
    sides = [push(relay) for _ in range(7)]
    assert [bool(side.received) for side in sides] == [False] * 5 + [True] * 2
    assert code_of(sides[-1].last) == "quota-exceeded"
    theirs = [push(relay, other) for _ in range(7)]
    assert [bool(side.received) for side in theirs] == [False] * 3 + [True] * 4
    assert relay.ingress.queue.refused == 6


def test_without_a_queue_it_is_refused_at_once():
    relay = Relay(max_in_flight=1, settings=IngressSettings(queue=0))
    push(relay)
    assert code_of(push(relay).last) == "quota-exceeded"


def test_a_sender_that_is_switched_off_while_it_waits():
    relay = Relay(max_in_flight=1)
    push(relay)
    waiting = push(relay)
    relay.sender.is_disabled = True
    relay.stream.answer(200)
    relay.clock.run()
    assert code_of(waiting.last) == "sender-disabled"
    relay.assert_nothing_left()


def test_a_body_that_waits_is_bounded():
    relay = Relay(max_in_flight=1)
    push(relay)
    side = relay.connect()
    side.send(b"POST /metrics HTTP/1.1\r\nHost: push.example.com\r\nContent-Length: 500000\r\n\r\n")
    side.send(b"a" * 500_000, by=16_384)
    assert side.transport.is_paused
    assert relay.budget.used < 100_000
    relay.stream.answer(200)
    relay.clock.run()
    side.flush()
    assert len(relay.stream.body) == 500_000
    relay.stream.answer(200)
    assert side.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_higher_limits_let_in_who_waits():
    relay = Relay(max_in_flight=1)
    push(relay)
    push(relay)
    relay.sender.gate.configure(0, 0.0, 0.0)
    relay.route.gate.configure(0, 0.0, 0.0)
    relay.ingress.use(relay.context)
    relay.clock.run()
    assert len(relay.streams) == 2


def test_very_many_that_fail_in_their_turn_are_no_recursion():
    relay = Relay(max_in_flight=1, hold=0.0)
    first = push(relay)
    sides = [push(relay) for _ in range(3000)]
    relay.registry.sessions.clear()
    relay.stream.answer(200)
    relay.clock.run()
    assert first.answers() == [(200, b"")]
    assert {code_of(side.last) for side in sides} == {"no-connector"}
    relay.assert_nothing_left()
