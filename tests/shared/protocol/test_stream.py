"""The table of states, and every way of half-closing."""

from __future__ import annotations

import itertools

import pytest

from shared.errors import FAULTS
from shared.protocol.stream import TRANSITIONS, Event, Half, Stream
from tests.shared.protocol.kit import Pair

CODE = FAULTS["target-lost"].wire


def test_the_table_knows_every_pair_or_refuses_it() -> None:
    allowed = {pair for pair in itertools.product(Half, Event) if pair in TRANSITIONS}
    assert len(allowed) == 5
    for half, event in itertools.product(Half, Event):
        stream = Stream(Pair().relay.core, 0, is_opener=True, now=0.0)
        stream._receiving = half
        assert stream.receive(event, 0) == ((half, event) in TRANSITIONS)


def test_a_small_push_is_one_frame_each_way() -> None:
    pair = Pair()
    push = pair.relay.open(b"POST", b"body", end=True, deadline=0.0)
    (message,) = pair.relay.messages()
    assert message.count(b"POST") == 1
    pair.connector.feed(message)
    (delivery,) = pair.connector.pushes
    assert delivery.log == [("open", b"POST", b"body", True)]
    assert delivery.stream is not None
    delivery.stream.answer(b"204", b"", end=True)
    (answer,) = pair.connector.messages()
    pair.relay.feed(answer)
    assert push.log == [("answer", b"204", b"", True)]
    assert pair.relay.core.in_flight == pair.connector.core.in_flight == 0


@pytest.mark.parametrize("first", ["relay", "connector"])
def test_each_half_ends_for_itself(first: str) -> None:
    pair = Pair()
    push = pair.relay.open(b"h", b"", end=False)
    pair.roundtrip()
    (delivery,) = pair.connector.pushes
    assert push.stream is not None
    assert delivery.stream is not None
    delivery.stream.answer(b"200")
    if first == "relay":
        push.stream.send(b"", end=True)
        pair.roundtrip()
        delivery.stream.send(b"late", end=True)
    else:
        delivery.stream.send(b"early", end=True)
        pair.roundtrip()
        assert pair.relay.core.in_flight == 1
        push.stream.send(b"more", end=True)
    pair.roundtrip()
    assert pair.relay.core.in_flight == pair.connector.core.in_flight == 0
    assert pair.relay.log == pair.connector.log == [("ready",)]


def test_interim_answers_come_before_the_final_one() -> None:
    pair = Pair()
    push = pair.relay.open()
    pair.roundtrip()
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    stream.answer(b"103", interim=True)
    stream.answer(b"200", b"ok", end=True)
    pair.roundtrip()
    assert push.log == [("interim", b"103", b"", False), ("answer", b"200", b"ok", True)]


@pytest.mark.parametrize("refused", [True, False])
def test_reset_ends_both_halves_once(refused: bool) -> None:
    pair = Pair()
    push = pair.relay.open(end=False)
    pair.roundtrip()
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    stream.reset(CODE, refused)
    stream.reset(CODE, refused)
    assert push.stream is not None
    push.stream.send(b"crosses the reset")
    pair.roundtrip()
    assert push.log == [("reset", CODE, refused)]
    push.stream.send(b"after")
    push.stream.reset(CODE)
    pair.roundtrip()
    assert pair.relay.core.in_flight == pair.connector.core.in_flight == 0
    assert pair.connector.pushes[0].log == [("open", b"head", b"", False)]
    assert pair.relay.failure is None


def test_a_push_that_is_reset_before_it_was_sent_leaves_no_trace() -> None:
    pair = Pair()
    push = pair.relay.open(body=b"x" * 1000)
    assert push.stream is not None
    assert not push.stream.was_sent
    push.stream.reset(CODE)
    assert pair.relay.messages() == []
    assert pair.relay.budget.used == 0


def test_sending_after_the_end_is_our_own_bug() -> None:
    pair = Pair()
    push = pair.relay.open(end=True)
    assert push.stream is not None
    with pytest.raises(RuntimeError, match="ENDED"):
        push.stream.send(b"more")


def test_a_handler_that_raises_loses_its_stream_and_nothing_else() -> None:
    pair = Pair()

    class Broken:
        def on_answer(self, *_: object) -> None:
            raise ZeroDivisionError

        on_data = on_reset = on_writable = on_answer

    broken, healthy = pair.relay.open(), pair.relay.open()
    assert broken.stream is not None
    broken.stream.handler = Broken()
    pair.roundtrip()
    for delivery in pair.connector.pushes:
        assert delivery.stream is not None
        delivery.stream.answer(b"200", b"ok", end=True)
    pair.roundtrip()
    assert [type(error) for error in pair.relay.errors] == [ZeroDivisionError]
    assert healthy.log == [("answer", b"200", b"ok", True)]
    assert pair.relay.budget.used == 0


def test_interim_answers_cannot_flood_the_tunnel() -> None:
    pair = Pair()
    push = pair.relay.open()
    pair.roundtrip()
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    for _ in range(1000):
        stream.answer(b"x" * 31_000, interim=True)
    stream.answer(b"200", b"ok", end=True)
    pair.roundtrip()
    assert pair.connector.failure is None
    assert push.log[-1] == ("answer", b"200", b"ok", True)
    assert len(push.log) < 10


def test_who_asks_is_told_when_all_of_it_is_on_its_way() -> None:
    """Also of an end alone, and of the stream's last, after which it is over."""
    pair = Pair()
    pair.connector.takes = False
    push = pair.relay.open(end=False)
    stream = push.stream
    assert stream is not None
    assert not stream.is_sent, "its head waits"
    pair.roundtrip()
    assert stream.is_sent
    stream.send(bytes(3 << 20))
    assert not stream.is_sent
    pair.roundtrip()
    assert push.log == [("writable",)] * 2, "that it goes on"
    assert not stream.is_sent
    del push.log[1:]
    delivery = pair.connector.pushes[0]
    assert delivery.stream is not None
    delivery.takes = True
    delivery.stream.consumed(delivery.stream.unconsumed)
    delivery.stream.answer(b"answer", end=True)
    pair.roundtrip()
    assert stream.is_sent
    assert push.log == [("writable",), ("answer", b"answer", b"", True), ("writable",)]
    stream.send(b"", end=True)
    assert not stream.is_sent
    pair.roundtrip()
    assert push.log[3:] == [("writable",)]
    assert (stream.is_finished, stream.is_sent) == (True, True)


def test_a_stream_that_is_lost_tells_so_and_not_that_it_is_sent() -> None:
    pair = Pair()
    push = pair.relay.open(end=True)
    assert push.stream is not None
    assert not push.stream.is_sent
    pair.relay.core.lost(pair.relay.now)
    assert [entry[0] for entry in push.log] == ["reset"]
