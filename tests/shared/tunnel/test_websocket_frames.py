"""The frame reader: against the websockets library's own frames, cut anywhere, and against whatever else there is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame

from shared.tunnel.transport import MAX_MESSAGE
from shared.tunnel.websocket_frames import FrameError, FrameReader, encode_frame

KEY = b"\x01\x02\x03\x04"


class Reading:
    """A reader and what it called."""

    def __init__(self, *, masked: bool) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.reader = FrameReader(
            masked=masked,
            on_message=lambda payload: self.seen.append((2, payload)),
            on_control=lambda opcode, payload: self.seen.append((opcode, payload)),
        )

    def feed(self, data: bytes, *cuts: int) -> None:
        start = 0
        for cut in (*sorted(cuts), len(data)):
            piece = bytearray(data[start:cut] + b"scratch memory has a tail")
            self.reader.feed(memoryview(piece), max(0, cut - start))
            start = max(start, cut)


def frames() -> st.SearchStrategy[Frame]:
    payloads = st.one_of(
        st.binary(min_size=1, max_size=300), st.sampled_from([126, 65535, MAX_MESSAGE]).map(lambda size: b"x" * size)
    )
    controls = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125))
    return st.one_of(
        payloads.map(lambda payload: Frame(BINARY, payload)), controls.map(lambda pair: Frame(pair[0], pair[1]))
    )


@given(st.lists(frames(), max_size=6), st.booleans(), st.data())
def test_reads_what_the_library_writes_wherever_it_is_cut(sent, masked, data):
    wire = b"".join(frame.serialize(mask=masked) for frame in sent)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))
    reading = Reading(masked=masked)
    reading.feed(wire, *cuts)
    assert reading.seen == [(int(frame.opcode), frame.data) for frame in sent]


@given(frames())
def test_writes_what_the_library_writes(frame):
    assert encode_frame(frame.opcode, bytes(frame.data), None) == frame.serialize(mask=False)
    masked = encode_frame(frame.opcode, bytes(frame.data), KEY)
    reading = Reading(masked=True)
    reading.feed(masked)
    assert reading.seen == [(int(frame.opcode), frame.data)]


@given(st.binary(max_size=600), st.booleans(), st.lists(st.integers(0, 600), max_size=8))
@example(b"\x82\xff\xff", True, [1, 2])
def test_no_bytes_raise_anything_but_a_frame_error(data, masked, cuts):
    reading = Reading(masked=masked)
    with contextlib.suppress(FrameError):
        reading.feed(data, *[min(cut, len(data)) for cut in cuts])
    assert all(len(payload) <= MAX_MESSAGE for _, payload in reading.seen)


def masked(opcode: int, payload: bytes = b"", **bits: bool) -> bytes:
    return bytes((opcode | 0x80, 0x80 | len(payload))) + KEY + bytes(len(payload))


BAD = {
    "text": (b"\x81\x80" + KEY, 1003),
    "text, first fragment": (b"\x01\x80" + KEY, 1003),
    "first fragment": (b"\x02\x81" + KEY, 1003),
    "continuation": (b"\x00\x81" + KEY, 1003),
    "last continuation": (b"\x80\x81" + KEY, 1003),
    "compressed": (b"\xc2\x81" + KEY, 1002),
    "RSV2": (b"\xa2\x81" + KEY, 1002),
    "RSV3": (b"\x92\x81" + KEY, 1002),
    "RSV on a ping": (b"\xc9\x80" + KEY, 1002),
    "unmasked": (b"\x82\x01x", 1002),
    "fragmented ping": (b"\x09\x80" + KEY, 1002),
    "long ping": (b"\x89\xfe\x00\x7e" + KEY, 1002),
    "very long close": (b"\x88\xff" + bytes(8), 1002),
    "opcode 3": (b"\x83\x80" + KEY, 1002),
    "opcode 15": (b"\x8f\x80" + KEY, 1002),
    "one byte too large": (b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big"), 1009),
    "2^63 bytes": (b"\x82\xff" + b"\xff" * 8, 1009),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "byte by byte"])
def test_refuses_at_the_header(name, is_whole):
    wire, code = BAD[name]
    reading = Reading(masked=True)
    with pytest.raises(FrameError) as caught:
        reading.feed(wire, *([] if is_whole else range(len(wire))))
    assert caught.value.code == code
    assert reading.seen == []


def test_a_client_refuses_masked_frames():
    with pytest.raises(FrameError, match="masking"):
        Reading(masked=False).feed(Frame(BINARY, b"x").serialize(mask=True))


def test_good_frames_before_a_bad_one_are_delivered():
    reading = Reading(masked=False)
    wire = Frame(BINARY, b"good").serialize(mask=False) + Frame(TEXT, b"bad").serialize(mask=False)
    with pytest.raises(FrameError):
        reading.feed(wire)
    assert reading.seen == [(2, b"good")]


def test_the_library_would_take_a_fragment_that_we_refuse():
    """What makes the difference is pinned: should the tunnel ever need fragments, this is the place to look."""
    wire = Frame(BINARY, b"a", fin=False).serialize(mask=False) + Frame(CONT, b"b").serialize(mask=False)
    with pytest.raises(FrameError, match="1003"):
        Reading(masked=False).feed(wire)


def test_nothing_is_called_after_stop():
    seen = []

    def take_one(payload: bytes) -> None:
        seen.append(payload)
        reader.stop()

    reader = FrameReader(masked=False, on_message=take_one, on_control=lambda *_: None)
    wire = Frame(BINARY, b"1").serialize(mask=False) * 5
    reader.feed(memoryview(wire), len(wire))
    assert seen == [b"1"]
