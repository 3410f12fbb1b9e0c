"""Every (state, frame) pair, and any bytes at all: the core never raises, and what it does stays consistent."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.protocol import Role, Settings, State, frames
from shared.protocol.frames import Frame
from shared.protocol.hello import CAPABILITIES, RENEWAL
from tests.shared.protocol.kit import End, Pair, Recorder

HEAD = frames.open_head(0, b"head")
ANSWER = frames.answer_head(b"head")
FRAMES = {
    "HELLO": Frame(frames.HELLO, 0, 0, b"{}"),
    "OPEN": Frame(frames.OPEN, 0, 9, HEAD + b"body"),
    "OPEN+END": Frame(frames.OPEN, frames.END, 9, HEAD),
    "OPEN again": Frame(frames.OPEN, 0, 1, HEAD),
    "OPEN 0": Frame(frames.OPEN, 0, 0, HEAD),
    "OPEN short": Frame(frames.OPEN, 0, 9, HEAD[:5]),
    "OPEN cut head": Frame(frames.OPEN, 0, 9, HEAD[:-1]),
    "ANSWER": Frame(frames.ANSWER, 0, 1, ANSWER + b"body"),
    "ANSWER+END": Frame(frames.ANSWER, frames.END, 1, ANSWER),
    "INTERIM": Frame(frames.ANSWER, frames.INTERIM, 1, ANSWER),
    "INTERIM+body": Frame(frames.ANSWER, frames.INTERIM, 1, ANSWER + b"body"),
    "INTERIM+END": Frame(frames.ANSWER, frames.INTERIM | frames.END, 1, ANSWER),
    "ANSWER short": Frame(frames.ANSWER, 0, 1, b"\0"),
    "ANSWER cut head": Frame(frames.ANSWER, 0, 1, ANSWER[:-1]),
    "ANSWER unknown": Frame(frames.ANSWER, 0, 77, ANSWER),
    "DATA": Frame(frames.DATA, 0, 1, b"body"),
    "DATA+END": Frame(frames.DATA, frames.END, 1, b"body"),
    "DATA 0": Frame(frames.DATA, 0, 0, b"body"),
    "DATA unknown": Frame(frames.DATA, 0, 77, b"body"),
    "RESET": Frame(frames.RESET, 0, 1, b"\0\1"),
    "RESET short": Frame(frames.RESET, 0, 1, b"\0"),
    "RESET unknown": Frame(frames.RESET, 0, 77, b"\0\1"),
    "CREDIT": Frame(frames.CREDIT, 0, 1, b"\0\0\1\0"),
    "CREDIT 0": Frame(frames.CREDIT, 0, 0, b"\0\0\1\0"),
    "CREDIT short": Frame(frames.CREDIT, 0, 1, b"\0"),
    "PING": Frame(frames.PING, 0, 0, bytes(8)),
    "PING short": Frame(frames.PING, 0, 0, bytes(7)),
    "PONG": Frame(frames.PONG, 0, 0, bytes(16)),
    "PONG short": Frame(frames.PONG, 0, 0, bytes(15)),
    "PONG of the future": Frame(frames.PONG, 0, 0, b"\xff" * 16),
    "DRAIN": Frame(frames.DRAIN, 0, 0, bytes(4)),
    "DRAIN+ACK": Frame(frames.DRAIN, frames.ACK, 0, bytes(4)),
    "DRAIN+REPLACE": Frame(frames.DRAIN, frames.REPLACE, 0, bytes(4)),
    "DRAIN short": Frame(frames.DRAIN, 0, 0, bytes(3)),
    "TARGETS": Frame(frames.TARGETS, 0, 0, b'{"targets":{}}'),
    "TARGETS bad": Frame(frames.TARGETS, 0, 0, b"[]"),
    "RENEW": Frame(frames.RENEW, 0, 0, b'{"request":"PEM"}'),
    "RENEW bad": Frame(frames.RENEW, 0, 0, b'{"request":1}'),
    "RENEW on a stream": Frame(frames.RENEW, 0, 1, b'{"request":"PEM"}'),
    "CERTIFICATE": Frame(frames.CERTIFICATE, 0, 0, b'{"certificate":"PEM"}'),
    "CERTIFICATE+error": Frame(frames.CERTIFICATE, 0, 0, b'{"error":"cannot-issue","detail":"later"}'),
    "CERTIFICATE bad": Frame(frames.CERTIFICATE, 0, 0, b"{}"),
    "TRUST roots": Frame(frames.TRUST, 0, 0, b'{"roots":["PEM"],"cross":[]}'),
    "TRUST pins": Frame(frames.TRUST, 0, 0, b'{"pins":[]}'),
    "TRUST bad": Frame(frames.TRUST, 0, 0, b'{"pins":[1],"roots":[1]}'),
    "TRUST on a stream": Frame(frames.TRUST, 0, 1, b'{"roots":["PEM"],"pins":[]}'),
    "HINT": Frame(frames.HINT, 0, 0, b'{"within":3600}'),
    "HINT bad": Frame(frames.HINT, 0, 0, b'{"within":-1}'),
    "HINT on a stream": Frame(frames.HINT, 0, 1, b'{"within":3600}'),
    "unknown": Frame(0x7F, 0xFF, 5, b"from tomorrow"),
}  # fmt: skip

RENEWAL_STATES = ["renewal offered", "renewal asked", "renew only"]
STATES = [
    "greeting", "idle", "opened", "answered", "half closed", "over", "draining", "after a gap", "closed",
    *RENEWAL_STATES,
]  # fmt: skip


def in_state(role: Role, state: str) -> End:
    """One end whose stream 1, if any, is in the given state."""
    if state in RENEWAL_STATES:
        both = CAPABILITIES | {RENEWAL}
        pair = Pair(capabilities=(both, both), renew_only=state == "renew only")
        if state == "renewal asked":
            assert pair.connector.core.renewal.request_certificate(b"PEM")
            pair.roundtrip()
        return pair.relay if role is Role.RELAY else pair.connector
    pair = Pair(greet=state != "greeting")
    end = pair.relay if role is Role.RELAY else pair.connector
    if state in ("opened", "answered", "half closed", "over", "draining", "after a gap"):
        push = pair.relay.open(end=state == "half closed")
        pair.roundtrip()
        stream = pair.connector.pushes[0].stream
        assert stream is not None
        assert push.stream is not None
        if state == "answered":
            stream.answer(b"200")
        elif state == "half closed":
            stream.answer(b"200", b"", end=role is Role.RELAY and False)
        elif state == "over":
            stream.reset(186)
        elif state == "draining":
            end.core.drain(10.0, end.now)
        pair.roundtrip()
    if state == "after a gap":
        end.core.note_gap(end.now)
    if state == "closed":
        end.core.lost(end.now)
    return end


VIOLATIONS = {
    Role.RELAY: {
        "HELLO", "OPEN", "OPEN+END", "OPEN again", "OPEN 0", "OPEN short", "OPEN cut head",
        "ANSWER short",
        "ANSWER cut head", "ANSWER unknown", "DATA 0", "DATA unknown", "RESET short", "RESET unknown",
        "CREDIT 0", "CREDIT short",
        "PING short", "PONG short", "PONG of the future", "DRAIN short", "TARGETS bad",
        "RENEW bad", "RENEW on a stream", "CERTIFICATE", "CERTIFICATE+error", "CERTIFICATE bad", "TRUST bad",
        "TRUST on a stream", "HINT", "HINT bad", "HINT on a stream",
    },
    Role.CONNECTOR: {
        "HELLO", "OPEN 0", "OPEN short", "OPEN cut head", "ANSWER", "ANSWER+END", "INTERIM", "INTERIM+body",
        "INTERIM+END",
        "ANSWER short", "ANSWER cut head", "ANSWER unknown", "DATA 0", "RESET short", "CREDIT 0", "CREDIT short",
        "PING short", "PONG short", "PONG of the future", "DRAIN short", "TARGETS", "TARGETS bad",
        "RENEW", "RENEW bad", "RENEW on a stream", "CERTIFICATE bad", "TRUST pins", "TRUST bad", "TRUST on a stream",
        "HINT bad", "HINT on a stream",
    },
}  # fmt: skip
"""What is wrong whatever the state of the streams, once HELLOs are exchanged."""


@pytest.mark.parametrize(("role", "state", "name"), list(itertools.product(Role, STATES, FRAMES)))
def test_every_pair(role: Role, state: str, name: str) -> None:
    end = in_state(role, state)
    before = end.failure
    end.feed(FRAMES[name].serialize())
    end.messages()
    assert end.errors == []
    assert end.budget.used == end.held
    if state == "closed":
        assert end.failure is before
    elif state == "greeting":
        known = FRAMES[name].type in frames.NAMES
        assert end.failure == ("version-mismatch" if name == "HELLO" else "protocol-error" if known else None)
    elif (
        state == "after a gap"
        and role is Role.CONNECTOR
        and FRAMES[name].type in (frames.OPEN, frames.DATA, frames.RESET)
    ):
        assert end.failure is None, "held, and judged later"
    elif name in VIOLATIONS[role]:
        assert end.failure == "protocol-error"
        assert end.core.state is State.CLOSED
        assert all(push.is_over or push.stream is None or push.stream.is_finished for push in end.pushes)


@given(st.sampled_from(list(Role)), st.sampled_from(STATES), st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(role: Role, state: str, messages: list[bytes]) -> None:
    end = in_state(role, state)
    end.feed(*messages)
    end.messages()
    assert end.errors == []


frame_strategy = st.builds(
    Frame,
    st.sampled_from([*frames.NAMES, 0x55]),
    st.integers(0, 3),
    st.integers(0, 6),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                HEAD + b"xyz",
                ANSWER + b"xyz",
                ANSWER,
                bytes(16),
                b"\0\0\0\1",
                b'{"targets":{"a":"http"}}',
                b'{"request":"PEM","certificate":"PEM","roots":["PEM"],"pins":[],"within":1}',
            ]
        ),
    ),
)


@settings(max_examples=300)
@given(st.sampled_from(list(Role)), st.lists(st.lists(frame_strategy, max_size=4), max_size=8), st.booleans())
def test_any_frames_in_any_order(role: Role, script: list[list[Frame]], answers: bool) -> None:
    run_script(in_state(role, "opened"), script, answers=answers)


@settings(max_examples=200)
@given(
    st.sampled_from(list(Role)),
    st.sampled_from(RENEWAL_STATES),
    st.lists(st.lists(frame_strategy, max_size=4), max_size=8),
)
def test_any_frames_where_renewal_is_offered(role: Role, state: str, script: list[list[Frame]]) -> None:
    run_script(in_state(role, state), script, answers=True)


def run_script(end: End, script: list[list[Frame]], *, answers: bool) -> None:
    for batch in script:
        end.feed(b"".join(frame.serialize() for frame in batch))
        for push in end.pushes:
            if answers and push.stream is not None and not push.stream.is_finished:
                push.stream.reset(186)
        end.messages()
        end.now += 0.3
        if end.core.deadline <= end.now:
            end.core.handle_deadline(end.now)
        assert end.budget.used == end.held
    end.core.lost(end.now)
    assert end.budget.used == 0
    assert end.errors == []


def test_opens_without_number_are_refused_not_stored() -> None:
    pair = Pair(Settings(max_streams=3))
    for number in range(1, 6):
        pair.connector.feed(Frame(frames.OPEN, 0, number, HEAD).serialize())
    assert len(pair.connector.pushes) == 3
    pair.connector.feed()
    (message,) = pair.connector.messages()
    assert [frame.type for frame in frames.parse(message)] == [frames.RESET, frames.RESET]


def test_a_peer_that_makes_us_answer_and_never_reads_is_cut_off() -> None:
    pair = Pair(Settings(max_streams=1))
    for number in range(1, 200_000):
        pair.connector.feed(Frame(frames.OPEN, 0, number, HEAD).serialize())
        if pair.connector.failure:
            break
    assert pair.connector.failure == "protocol-error"


def test_a_message_larger_than_any_is_refused() -> None:
    pair = Pair()
    pair.relay.feed(bytes(frames.MAX_MESSAGE + 1))
    assert pair.relay.failure == "protocol-error"


operations = st.lists(
    st.tuples(
        st.sampled_from(["open", "send", "end", "answer", "reply", "reply end", "reset", "refuse", "deliver", "time"]),
        st.integers(0, 5), st.integers(0, 90_000),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=200)
@given(operations)
def test_two_honest_ends_never_disagree(script: list[tuple[str, int, int]]) -> None:
    """Whatever applications do and in whatever order it travels: no violation, no leak, and both agree in the end."""
    pair = Pair(Settings(stream_credit=50_000))
    pushes: list[Recorder] = []
    for action, which, size in script:
        if action == "open" and pair.relay.core.can_open:
            pushes.append(pair.relay.open(body=bytes(size), end=bool(which % 2)))
        elif action == "deliver":
            pair.roundtrip() if which else pair.transfer(pair.relay, pair.connector)
        elif action == "time":
            pair.advance(0.2)
            pair.tick()
        elif action in ("send", "end", "reset") and which < len(pushes):
            act(pushes[which], action, size)
        elif which < len(pair.connector.pushes):
            act(pair.connector.pushes[which], action, size)
    pair.roundtrip()
    assert pair.relay.failure is pair.connector.failure is None
    assert pair.relay.core.table.open.keys() == pair.connector.core.table.open.keys()
    for end in pair.ends:
        assert end.errors == []
        assert end.budget.used == end.held


def act(push: Recorder, action: str, size: int) -> None:
    stream = push.stream
    assert stream is not None
    try:
        match action:
            case "send":
                stream.send(bytes(size))
            case "end":
                stream.send(b"", end=True)
            case "answer":
                stream.answer(b"200", bytes(size))
            case "reply":
                stream.send(bytes(size))
            case "reply end":
                stream.send(bytes(size), end=True)
            case "reset" | "refuse":
                stream.reset(186, action == "refuse")
    except RuntimeError:
        pass  # the application's own mistake, which it is told of
