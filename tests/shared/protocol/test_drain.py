"""Make before break: nothing is lost when a tunnel is given up in good order."""

from __future__ import annotations

from shared.errors import FAULTS
from tests.shared.protocol.kit import Pair

REFUSED = FAULTS["tunnel-refused"].wire


def test_a_connector_drains_when_the_relay_has_agreed_and_all_is_done() -> None:
    pair = Pair()
    open_push = pair.relay.open()
    pair.roundtrip()
    waiting = pair.relay.open(b"waits in the outbox")
    pair.connector.core.drain(30.0, pair.connector.now)
    pair.transfer(pair.connector, pair.relay)
    assert ("drain", 30.0) in pair.relay.log
    assert not pair.relay.core.can_open
    assert waiting.log == [("reset", REFUSED, True)], "it may go to another tunnel"
    pair.roundtrip()
    assert ("drained",) not in pair.connector.log
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    stream.answer(b"200", b"", end=True)
    pair.roundtrip()
    assert open_push.log == [("answer", b"200", b"", True)]
    assert ("drained",) in pair.connector.log


def test_a_push_that_crosses_the_drain_is_served() -> None:
    pair = Pair()
    push = pair.relay.open()
    crossing = pair.relay.messages()
    pair.connector.core.drain(30.0, pair.connector.now)
    drain = pair.connector.messages()
    pair.connector.feed(*crossing)
    pair.relay.feed(*drain)
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    stream.answer(b"200", b"", end=True)
    pair.roundtrip()
    assert push.log == [("answer", b"200", b"", True)]
    assert pair.connector.log[-1] == ("drained",)


def test_a_relay_drains() -> None:
    pair = Pair()
    pair.relay.open()
    pair.roundtrip()
    pair.relay.core.drain(10.0, pair.relay.now)
    pair.roundtrip()
    assert ("drain", 10.0) in pair.connector.log
    assert not pair.relay.core.can_open
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    stream.answer(b"200", b"", end=True)
    pair.roundtrip()
    assert pair.relay.log[-1] == ("drained",)


def test_draining_is_bounded_in_time() -> None:
    pair = Pair()
    pair.relay.open()
    pair.roundtrip()
    pair.relay.core.drain(10.0, pair.relay.now)
    pair.roundtrip()
    for _ in range(101):
        pair.advance(0.1)
        pair.tick()
        pair.roundtrip()
    assert pair.relay.log[-1] == ("drained",)


def test_a_relay_that_wants_a_new_tunnel_goes_on_with_the_old_one_until_it_drains() -> None:
    pair = Pair()
    pair.relay.core.ask_replacement(100.0)
    pair.roundtrip()
    assert ("replace", 100.0) in pair.connector.log
    assert pair.relay.core.can_open
    for _ in range(2):
        push = pair.relay.open()
        pair.roundtrip()
        stream = pair.connector.pushes[-1].stream
        assert stream is not None
        stream.answer(b"200", b"", end=True)
        pair.roundtrip()
        assert push.log == [("answer", b"200", b"", True)]
    assert ("drained",) not in pair.relay.log, "however often nothing is in flight"
    pair.relay.core.drain(10.0, pair.relay.now)
    pair.roundtrip()
    assert ("drain", 10.0) in pair.connector.log
    pair.relay.core.ask_replacement(100.0)
    pair.roundtrip()
    assert pair.connector.log.count(("replace", 100.0)) == 1, "too late to ask"
    assert pair.relay.log[-1] == ("drained",)


def test_only_a_relay_asks_for_new_tunnels() -> None:
    pair = Pair()
    pair.connector.core.ask_replacement(10.0)
    pair.roundtrip()
    assert pair.relay.log == [("ready",)]
