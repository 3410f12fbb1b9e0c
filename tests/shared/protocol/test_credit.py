"""Nobody sends what nobody has room for, everything arrives, and one reader does not stop another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import Settings, frames
from shared.protocol.credit import ReceiveWindow, TunnelWindow
from tests.shared.protocol.kit import Pair

KIB = 1024
MIB = 1024 * KIB


@given(st.lists(st.integers(1, 40_000), max_size=200), st.integers(4, 1 << 20))
def test_a_receive_window_never_gives_back_more_than_was_read(reads: list[int], size: int) -> None:
    window = ReceiveWindow(size, size, now=0.0)
    given_back = read = 0
    for n in reads:
        read += n
        given_back += window.on_consumed(n, now=1000.0 * read, round_trip=0.1)
        assert given_back <= read
        assert read - given_back < max(size // 4, 1) or given_back == read


def test_a_window_grows_only_with_a_reader_that_keeps_up() -> None:
    keeps_up, slow = ReceiveWindow(MIB, 16 * MIB, 0.0), ReceiveWindow(MIB, 16 * MIB, 0.0)
    credit = sum(keeps_up.on_consumed(256 * KIB, 0.001 * n, 0.1) for n in range(400))
    assert 111 * MIB < credit <= 115 * MIB
    assert sum(slow.on_consumed(256 * KIB, 1.0 * n, 0.1) for n in range(1, 400)) == 399 * 256 * KIB


def test_the_tunnels_window_fills_a_long_fat_pipe() -> None:
    """1 Gbit/s, 100 ms: the product is 12.5 MB."""
    now, window, rate, delay = 0.0, TunnelWindow(Settings(), 32 * MIB, 0.0), 125e6, 0.1
    pipe: list[tuple[float, int]] = []
    free_at = 0.0
    for _ in range(4000):
        room = window.room(is_bulk=True)
        if room > 0:
            window.on_sent(room, now)
            free_at = max(free_at, now) + room / rate
            pipe.append((free_at + delay, room))
        now += 0.001
        while pipe and pipe[0][0] <= now:
            assert window.on_credit(pipe.pop(0)[1], now)
    assert 12.5e6 < window.window <= 32 * MIB


def test_credit_that_was_never_used_is_a_violation() -> None:
    pair = Pair()
    pair.relay.feed(frames.credit(0, 1))
    assert pair.relay.failure == "protocol-error"


def test_a_stalled_reader_gets_its_first_credit_and_no_more() -> None:
    pair = Pair()
    pair.connector.takes = False
    push = pair.relay.open(end=False)
    assert push.stream is not None
    for _ in range(64):
        push.stream.send(bytes(64 * KIB))
        pair.roundtrip()
    delivery = pair.connector.pushes[0]
    assert len(delivery.received) == pair.connector.settings.stream_credit
    assert push.stream.buffered == 64 * 64 * KIB - len(delivery.received)
    assert not push.stream.is_writable
    assert delivery.stream is not None
    delivery.takes = True
    delivery.stream.consumed(delivery.stream.unconsumed)
    pair.roundtrip()
    assert len(delivery.received) == 64 * 64 * KIB
    assert ("writable",) in push.log
    assert pair.relay.budget.used == 0
    assert pair.connector.budget.used == len(b"head"), "the push is not over: its head is still held"


def test_two_hundred_stalled_readers_do_not_stop_one_that_reads() -> None:
    pair = Pair()
    pair.connector.takes = False
    for _ in range(200):
        stalled = pair.relay.open(end=False)
        assert stalled.stream is not None
        stalled.stream.send(bytes(2 * MIB))
    pair.roundtrip()
    pair.connector.takes = True
    pair.relay.open(b"alive", b"x" * 2000, end=True)
    pair.roundtrip()
    assert pair.connector.pushes[-1].log[0] == ("open", b"alive", b"x" * 2000, True)


@pytest.mark.parametrize("flags", [0, frames.END])
def test_more_than_the_streams_credit_ends_the_tunnel(flags: int) -> None:
    pair = Pair(Settings(stream_credit=1000, tunnel_window_max=MIB))
    pair.connector.takes = False
    head = frames.open_head(0, b"h")
    pair.connector.feed(frames.HEADER.pack(frames.OPEN, flags, len(head) + 1001, 1) + head + bytes(1001))
    assert pair.connector.failure == "protocol-error"
    assert pair.connector.budget.used == 0


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=12), st.sampled_from([1000, 70_000, MIB]))
def test_every_byte_arrives_in_order_whatever_the_credit(sizes: list[int], credit: int) -> None:
    pair = Pair(Settings(stream_credit=credit))
    push = pair.relay.open(end=False)
    assert push.stream is not None
    sent = bytearray()
    for number, size in enumerate(sizes):
        chunk = bytes([number]) * size
        sent += chunk
        push.stream.send(chunk)
    push.stream.send(b"", end=True)
    pair.roundtrip()
    assert pair.connector.pushes[0].received == sent
    assert pair.relay.budget.used == 0
    assert pair.connector.budget.used == len(b"head")


@pytest.mark.parametrize("bulks", [1, 5])
def test_a_small_push_overtakes_bulk(bulks: int) -> None:
    """At most one message of bulk is ahead of it, however much waits."""
    pair = Pair()
    for _ in range(bulks):
        bulk = pair.relay.open(end=False)
        assert bulk.stream is not None
        bulk.stream.send(bytes(900 * KIB))
    taken = pair.relay.core.next_message(100.0)
    assert taken is not None
    while len(taken) > frames.MAX_MESSAGE // 2 and (more := pair.relay.core.next_message(100.0)):
        taken = more
    pair.relay.open(b"small", b"y" * 2000, end=True)
    message = pair.relay.core.next_message(100.0)
    assert message is not None
    assert b"small" in message


def test_streams_that_ended_while_they_waited_for_credit_do_not_pile_up() -> None:
    """A connector that lives, reads, and gives no credit back."""
    pair = Pair(Settings(stream_credit=10 * MIB))
    big = pair.relay.open(end=False)
    assert big.stream is not None
    big.stream.send(bytes(MIB))
    pair.relay.messages()
    for _ in range(5000):
        push = pair.relay.open(body=bytes(10 * KIB), end=False)
        pair.relay.messages()
        assert push.stream is not None
        push.stream.send(bytes(500 * KIB))
        pair.relay.messages()
        push.stream.reset(108)
        pair.relay.messages()
    outbox = pair.relay.core.outbox
    assert len(outbox._starved) + len(outbox._fresh) + len(outbox._bulk) < 600


def test_a_tunnel_that_gives_no_credit_back_is_given_up() -> None:
    pair = Pair(Settings(stream_credit=10 * MIB))
    push = pair.relay.open(end=False)
    assert push.stream is not None
    push.stream.send(bytes(5 * MIB))
    pair.relay.messages()
    for _ in range(210):
        pair.advance(0.1)
        pair.relay.feed(frames.ping(1))  # it lives
        pair.tick()
        pair.relay.messages()
    assert pair.relay.failure == "silent"
