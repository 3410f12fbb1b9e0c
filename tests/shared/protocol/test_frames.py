"""One literal a frame checks both ways of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import frames
from shared.protocol.frames import Frame

LITERALS = [
    (
        frames.reset(7, 186, refused=True),
        bytes.fromhex("05 02 0002 00000007 00ba"),
        "RESET stream=7 flags=0x2 [2 bytes]",
    ),
    (frames.credit(0, 65536), bytes.fromhex("06 00 0004 00000000 00010000"), "CREDIT stream=0 [4 bytes]"),
    (frames.ping(1), bytes.fromhex("07 00 0008 00000000 0000000000000001"), "PING stream=0 [8 bytes]"),
    (
        frames.pong(1, 2),
        bytes.fromhex("08 00 0010 00000000 0000000000000001 0000000000000002"),
        "PONG stream=0 [16 bytes]",
    ),
    (frames.drain(1.5), bytes.fromhex("09 00 0004 00000000 000005dc"), "DRAIN stream=0 [4 bytes]"),
    (
        frames.drain(2, replace=True),
        bytes.fromhex("09 02 0004 00000000 000007d0"),
        "DRAIN stream=0 flags=0x2 [4 bytes]",
    ),
    (frames.drain(0, ack=True), bytes.fromhex("09 01 0004 00000000 00000000"), "DRAIN stream=0 flags=0x1 [4 bytes]"),
    (
        frames.tunnel_frame(frames.TARGETS, b"{}"),
        bytes.fromhex("0a 00 0002 00000000") + b"{}",
        "TARGETS stream=0 [2 bytes]",
    ),
    (
        frames.tunnel_frame(frames.RENEW, b"{}"),
        bytes.fromhex("0b 00 0002 00000000") + b"{}",
        "RENEW stream=0 [2 bytes]",
    ),
    (
        frames.tunnel_frame(frames.CERTIFICATE, b"{}"),
        bytes.fromhex("0c 00 0002 00000000") + b"{}",
        "CERTIFICATE stream=0 [2 bytes]",
    ),
    (
        frames.tunnel_frame(frames.TRUST, b"{}"),
        bytes.fromhex("0d 00 0002 00000000") + b"{}",
        "TRUST stream=0 [2 bytes]",
    ),
    (frames.tunnel_frame(frames.HINT, b"{}"), bytes.fromhex("0e 00 0002 00000000") + b"{}", "HINT stream=0 [2 bytes]"),
]


@pytest.mark.parametrize(("made", "wire", "text"), LITERALS)
def test_literal(made: bytes, wire: bytes, text: str) -> None:
    assert made == wire
    (frame,) = frames.parse(wire)
    assert frame.serialize() == wire
    assert str(frame) == text


frame_strategy = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, frames.MAX_STREAM_ID), st.binary(max_size=300)
)


@given(st.lists(frame_strategy, max_size=20))
def test_what_was_serialized_is_parsed(sent: list[Frame]) -> None:
    assert list(frames.parse(b"".join(frame.serialize() for frame in sent))) == sent


@given(st.lists(frame_strategy, min_size=1, max_size=3), st.data())
def test_a_cut_message_is_never_taken_for_a_whole_one(sent: list[Frame], data: st.DataObject) -> None:
    whole = b"".join(frame.serialize() for frame in sent)
    boundaries, at = set(), 0
    for frame in sent:
        boundaries.add(at)
        at += len(frame.serialize())
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda n: n not in boundaries))
    with pytest.raises(ValueError, match="truncated"):
        list(frames.parse(whole[:cut]))


def test_a_head_that_is_too_large_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="larger than"):
        frames.open_head(0, bytes(frames.MAX_HEAD + 1))
    with pytest.raises(ValueError, match="larger than"):
        frames.answer_head(bytes(frames.MAX_HEAD + 1))
    with pytest.raises(ValueError, match="does not fit"):
        frames.tunnel_frame(frames.HELLO, bytes(70_000))
