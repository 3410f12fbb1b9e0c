"""What is too late does not reach a target: deadlines, and frames from before a gap."""

from __future__ import annotations

import pytest

from shared.errors import FAULTS
from shared.protocol import Settings
from tests.shared.protocol.kit import Pair

LATE = FAULTS["deadline-exceeded"].wire
CODE = FAULTS["sender-gone"].wire


@pytest.mark.parametrize("skew", [-1e4, 0.0, 1e6])
def test_a_deadline_counts_on_the_relays_clock(skew: float) -> None:
    pair = Pair(greet=False, now=2e4)
    pair.connector.now += skew
    pair.connector.core = type(pair.connector.core)(
        pair.connector.role, pair.connector, pair.connector.hello, Settings(), pair.connector.budget, pair.connector.now
    )
    pair.roundtrip()
    late = pair.relay.open(deadline=pair.relay.now + 1.0)
    waiting = pair.relay.messages()
    pair.advance(1.5)
    timely = pair.relay.open(deadline=pair.relay.now + 1.0)
    pair.connector.feed(*waiting, *pair.relay.messages())
    pair.roundtrip()
    assert len(pair.connector.pushes) == 1
    assert late.log == [("reset", LATE, True)]
    assert timely.log == []
    stream = pair.connector.pushes[0].stream
    assert stream is not None
    assert stream.deadline == pytest.approx(pair.connector.now + 1.0, abs=0.01)


def test_after_a_gap_nothing_is_delivered_before_a_fresh_pong() -> None:
    pair = Pair()
    pair.relay.open(body=b"waits")
    waiting = pair.relay.messages()
    pair.connector.now += 3
    pair.connector.core.note_gap(pair.connector.now)
    pair.connector.feed(*waiting)
    assert pair.connector.pushes == []
    pair.roundtrip()
    assert [push.received for push in pair.connector.pushes] == [b"waits"]


def test_what_was_reset_meanwhile_is_never_delivered() -> None:
    pair = Pair()
    half = pair.relay.open(b"half", b"first part", end=False)
    pair.roundtrip()
    gone = pair.relay.open(b"gone", b"x" * 100)
    assert gone.stream is not None
    assert half.stream is not None
    waiting = pair.relay.messages()
    half.stream.send(b"the rest", end=True)
    waiting += pair.relay.messages()
    gone.stream.reset(CODE)
    half.stream.reset(CODE)
    alive = pair.relay.open(b"alive", b"z")
    waiting += pair.relay.messages()
    pair.connector.core.note_gap(pair.connector.now)
    pair.connector.feed(*waiting)
    pair.roundtrip()
    assert [push.log for push in pair.connector.pushes] == [
        [("open", b"half", b"first part", False), ("reset", CODE, False)],
        [("open", b"alive", b"z", True)],
    ]
    assert alive.log == []
    assert pair.connector.failure is None
    # all that was dropped counts as arrived: the relay's window is whole again, save what is not worth a frame yet
    assert pair.relay.core.window.in_flight < 32 * 1024


def test_an_old_pong_does_not_open_the_gate() -> None:
    pair = Pair()
    pair.connector.now += 1
    pair.connector.core.ping(pair.connector.now)
    pair.transfer(pair.connector, pair.relay)
    old_pong = pair.relay.messages()
    pair.relay.open()
    push = pair.relay.messages()
    pair.connector.now += 3
    pair.connector.core.note_gap(pair.connector.now)
    pair.connector.feed(*old_pong, *push)
    assert pair.connector.pushes == []
    pair.roundtrip()
    assert len(pair.connector.pushes) == 1


def test_a_relay_that_floods_the_gate_is_cut_off() -> None:
    pair = Pair()
    pair.connector.core.note_gap(pair.connector.now)
    from shared.protocol import frames  # next to its only use

    frame = frames.HEADER.pack(frames.DATA, 0, 65_000, 1) + bytes(65_000)
    for _ in range(900):
        pair.connector.feed(frame)
    assert pair.connector.failure == "protocol-error"


def test_a_pong_does_not_overtake_the_resets_before_it() -> None:
    """The relay's transport was full: its resets wait, and then the PING of the woken connector arrives."""
    pair = Pair()
    gone = pair.relay.open(b"gone", b"x")
    waiting = pair.relay.messages()
    assert gone.stream is not None
    gone.stream.reset(CODE)
    pair.connector.core.note_gap(pair.connector.now)
    pair.transfer(pair.connector, pair.relay)
    pair.connector.feed(*waiting)
    pair.roundtrip()
    assert pair.connector.pushes == []


def test_after_a_gap_the_next_pong_sets_the_clock_whatever_it_took() -> None:
    """The connector's clock stood still for 4 s while its machine slept."""
    pair = Pair()
    pair.relay.now += 4
    pair.connector.core.note_gap(pair.connector.now)
    ping = pair.connector.messages()
    pair.advance(0.2)
    pair.relay.feed(*ping)
    pair.transfer(pair.relay, pair.connector)
    late = pair.relay.open(deadline=pair.relay.now - 1.0)
    pair.roundtrip()
    assert pair.connector.pushes == []
    assert late.log == [("reset", LATE, True)]


def test_a_connector_that_was_away_while_greeting_starts_anew() -> None:
    pair = Pair(greet=False)
    hello = pair.relay.messages()
    pair.connector.now += 3
    pair.connector.core.note_gap(pair.connector.now)
    pair.connector.feed(*hello)
    assert pair.connector.failure == "silent"


def test_what_waits_for_a_pong_keeps_to_the_budget() -> None:
    pair = Pair()
    pair.connector.budget.limit = 100_000
    pair.connector.core.note_gap(pair.connector.now)
    fed = 0
    while not pair.connector.core.is_closed:
        pair.relay.open(body=bytes(10_000))
        pair.connector.feed(*pair.relay.messages())
        fed += 10_000
        assert fed <= 120_000
    assert pair.connector.budget.used == 0
