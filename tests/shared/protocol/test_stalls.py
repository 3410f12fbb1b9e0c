"""Waits for credit are counted, each once, with its time: of streams whose readers are slow, and of full lines."""

from __future__ import annotations

import pytest

from shared.protocol import Settings
from tests.shared.protocol.kit import Pair

KIB = 1024
CREDIT = 64 * KIB


@pytest.fixture
def pair() -> Pair:
    return Pair(Settings(stream_credit=CREDIT, stream_credit_max=CREDIT))


def test_small_pushes_stall_nobody(pair: Pair) -> None:
    for _ in range(100):
        pair.relay.open(body=bytes(2 * KIB))
        pair.roundtrip()
        pair.advance(0.1)
    counts = pair.relay.core.outbox.stalls.counts
    assert (counts.streams, counts.stream_seconds, counts.tunnels, counts.tunnel_seconds) == (0, 0.0, 0, 0.0)


def test_a_slow_reader_is_one_stall_of_its_stream(pair: Pair) -> None:
    pair.connector.takes = False
    pair.relay.open(body=bytes(CREDIT + 1000))
    pair.roundtrip()
    stalls = pair.relay.core.outbox.stalls
    assert len(stalls.waiting) == 1
    pair.advance(3.0)
    (push,) = pair.connector.pushes
    assert push.stream is not None
    push.stream.consumed(CREDIT)
    pair.roundtrip()
    assert not stalls.waiting
    assert stalls.counts.streams == 1
    assert stalls.counts.stream_seconds == pytest.approx(3.0)
    assert stalls.counts.tunnels == 0
    assert len(push.received) == CREDIT + 1000


def test_a_stream_that_was_used_up_to_the_last_byte_stalls_with_the_next_one(pair: Pair) -> None:
    pair.connector.takes = False
    recorder = pair.relay.open(body=bytes(CREDIT), end=False)
    pair.roundtrip()
    stalls = pair.relay.core.outbox.stalls
    assert not stalls.waiting
    assert recorder.stream is not None
    recorder.stream.send(b"more")
    recorder.stream.send(b"and more")
    assert len(stalls.waiting) == 1


@pytest.mark.parametrize("ending", ["reset by the sender", "reset by the target", "the tunnel is lost"])
def test_a_stall_ends_with_its_stream(pair: Pair, ending: str) -> None:
    pair.connector.takes = False
    recorder = pair.relay.open(body=bytes(2 * CREDIT))
    pair.roundtrip()
    pair.advance(2.0)
    assert recorder.stream is not None
    assert pair.connector.pushes[0].stream is not None
    stalls = pair.relay.core.outbox.stalls
    if ending == "reset by the sender":
        recorder.stream.reset(1)
    elif ending == "reset by the target":
        pair.connector.pushes[0].stream.reset(1)
        pair.roundtrip()
    else:
        pair.relay.core.lost(pair.relay.now)
    assert not stalls.waiting
    assert stalls.counts.streams == 1


def test_a_full_line_is_a_stall_of_the_tunnel() -> None:
    settings = Settings(stream_credit=1 << 22, tunnel_window_min=CREDIT, tunnel_window_max=CREDIT, bulk_reserve=0)
    pair = Pair(settings)
    pair.relay.open(body=bytes(CREDIT * 2))
    sent = pair.relay.messages()
    assert pair.relay.core.outbox.is_starved
    pair.advance(0.5)
    pair.connector.feed(*sent)
    pair.roundtrip()
    counts = pair.relay.core.outbox.stalls.counts
    assert counts.tunnels >= 1
    assert counts.tunnel_seconds == pytest.approx(0.5)
    assert counts.streams == 0
    assert len(pair.connector.pushes[0].received) == 2 * CREDIT


def test_an_owner_may_have_several_tunnels_counted_together() -> None:
    pairs = [Pair(Settings(stream_credit=CREDIT, stream_credit_max=CREDIT)) for _ in range(2)]
    counts = pairs[0].relay.core.outbox.stalls.counts
    pairs[1].relay.core.outbox.stalls.counts = counts
    for pair in pairs:
        pair.connector.takes = False
        pair.relay.open(body=bytes(2 * CREDIT))
        pair.roundtrip()
        pair.relay.core.lost(pair.relay.now)
    assert counts.streams == 2
