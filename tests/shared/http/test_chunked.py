"""Chunked bodies: any segmentation gives the same, and nothing passes that the slow reference refuses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.http.chunked import LAST_CHUNK, MAX_TRAILERS, BadChunk, ChunkedDecoder, encode_chunk
from tests.shared.http.model import BadBody, read_chunked

WHOLE = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"a\r\n0123456789\r\n00\r\n\r\n", b"0123456789"),
    (b"0000000000000005\r\nhello\r\n0000\r\n\r\n", b"hello"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    (b"0\r\nX: y\r\n\r\n", b""),
    (b"0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    (b"0\r\nX:\xff\r\nY: \t z \r\n\r\n", b""),
]

REFUSED = [
    b"\r\n",
    b"\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"5\nhello\r\n",
    b"5\rhello",
    b"5;a=b\r\nhello\r\n",
    b"5;\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"5_0\r\nhello\r\n",
    b"g\r\n",
    b"00000000000000005\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    b"5\r\nhelloX\r\n",
    b"5\r\nhello\r\n\r\n",
    b"0\r\n\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: \rb\r\n\r\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\n: x\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\n\rX",
    b"0;a\r\n\r\n",
    b"\xb25\r\n",
    b"0\r\n" + b"X: " + b"y" * MAX_TRAILERS,
    b"0\r\n" + b"X: y\r\n" * 1400 + b"\r\n",
]


def decode(*pieces: bytes) -> tuple[bytes, bool, bytes, int]:
    decoder = ChunkedDecoder()
    body, done, rest = b"", False, b""
    for piece in pieces:
        data, done, behind = decoder.feed(piece)
        body += data
        rest += behind
        assert done == decoder.is_done
    assert decoder.received == len(body)
    return body, done, rest, decoder.received


@pytest.mark.parametrize(("raw", "body"), WHOLE)
def test_a_whole_body_is_decoded_and_what_follows_is_handed_back(raw: bytes, body: bytes) -> None:
    assert decode(raw) == (body, True, b"", len(body))
    assert decode(raw + b"GET /") == (body, True, b"GET /", len(body))
    assert read_chunked(raw + b"GET /") == (body, len(raw))


@pytest.mark.parametrize(("raw", "body"), WHOLE)
def test_segments_do_not_matter(raw: bytes, body: bytes) -> None:
    raw += b"next"
    assert decode(*[raw[i : i + 1] for i in range(len(raw))]) == (body, True, b"next", len(body))
    for i, j in itertools.combinations(range(len(raw) + 1), 2):
        assert decode(raw[:i], raw[i:j], raw[j:]) == (body, True, b"next", len(body))


@pytest.mark.parametrize("raw", REFUSED)
def test_what_is_not_strictly_chunked_is_refused(raw: bytes) -> None:
    with pytest.raises(BadChunk):
        decode(raw)
    with pytest.raises(BadChunk):
        decode(*[raw[i : i + 1] for i in range(len(raw))])
    with pytest.raises(BadBody):
        read_chunked(raw)


def test_the_fault_is_that_of_the_edge() -> None:
    with pytest.raises(BadChunk) as caught:
        ChunkedDecoder("target-malformed-answer").feed(b"x")
    assert caught.value.fault.status == 502


def test_bytes_are_counted_while_they_arrive() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"ffffffffffffffff\r\nabc") == (b"abc", False, b"")
    assert decoder.received == 3
    decoder.feed(b"de")
    assert decoder.received == 5


def test_an_empty_chunk_cannot_end_a_body_by_accident() -> None:
    assert encode_chunk(b"") == b""
    assert encode_chunk(b"x" * 16) == b"10\r\n" + b"x" * 16 + b"\r\n"


def outcome(pieces: list[bytes]) -> tuple[bytes, bool, int] | None:
    try:
        body, done, rest, _ = decode(*pieces)
    except BadChunk:
        return None
    return body, done, len(rest)


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(raw) + 1) for cut in cuts})
    return [raw[i:j] for i, j in itertools.pairwise([0, *places, len(raw)])]


@given(st.lists(st.binary(max_size=40), max_size=8), st.binary(max_size=10), st.lists(st.integers(0, 400), max_size=12))
def test_what_was_encoded_comes_out_whatever_the_segments(chunks: list[bytes], rest: bytes, cuts: list[int]) -> None:
    raw = b"".join(map(encode_chunk, chunks)) + LAST_CHUNK + rest
    assert outcome(split(raw, cuts)) == (b"".join(chunks), True, len(rest))


MUTATION = st.tuples(
    st.integers(0, 400),
    st.integers(0, 3),
    st.sampled_from([b"\r", b"\n", b"0", b";", b" ", b"\r\n", b"5", b"x"]) | st.binary(max_size=2),
)


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from([raw for raw, _ in WHOLE] + REFUSED[:-2]),
    st.lists(MUTATION, max_size=3),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_no_mutation_gives_a_body_that_the_reference_does_not(
    raw: bytes, mutations: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    for position, removed, inserted in mutations:
        at = position % (len(raw) + 1)
        raw = raw[:at] + inserted + raw[at + removed :]
    got = outcome(split(raw, cuts))
    try:
        expected = read_chunked(raw)
    except BadBody:
        assert got is None
        return
    assert got is not None
    if expected is None:
        assert not got[1]
    else:
        body, end = expected
        assert got == (body, True, len(raw) - end)


def test_many_tiny_chunks_cost_one_step_each() -> None:
    """200,000 chunks of one byte in one piece: a quadratic decoder would not come back in time."""
    raw = b"1\r\nx\r\n" * 200_000 + LAST_CHUNK
    assert decode(raw) == (b"x" * 200_000, True, b"", 200_000)
