"""Hostile request heads, family by family and at random, against an independent model of what they mean."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.http.gate import BadRequest
from shared.http.headers import HOP_BY_HOP, prepare_request_headers
from shared.http.push_head import PushHead, decode_push, encode_push
from shared.http.requests import parse_request_head, serialize_request_head
from tests.shared.http.hostile import FAMILIES
from tests.shared.http.model import Reading, Refused, read_request


def model(raw: bytes) -> Reading | str:
    try:
        return read_request(raw)
    except Refused as refused:
        return refused.code


def gates(raw: bytes) -> Reading | str:
    try:
        got = parse_request_head(raw)
    except BadRequest as refused:
        return refused.fault.code
    assert got.path == got.target.partition(b"?")[0]
    length = -1 if got.is_chunked else got.content_length
    return Reading(got.method, got.target, got.version[1], got.host, length, got.headers, got.dropped)


def agree(raw: bytes) -> bool:
    """Let both read; they must agree on the verdict, the code, and all that they read. True if it passed."""
    expected = model(raw)
    assert gates(raw) == expected, raw[:300]
    return isinstance(expected, Reading)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_hostile_heads_is_read_as_the_model_reads_it(family: str) -> None:
    cases = FAMILIES[family]
    verdicts = [agree(raw) for raw in cases]
    assert len(cases) >= 100
    assert any(verdicts), "a family that never passes proves little"
    assert not all(verdicts)


def test_the_corpus_is_not_empty() -> None:
    assert sum(map(len, FAMILIES.values())) >= 3000


SEEDS = st.sampled_from([raw for cases in FAMILIES.values() for raw in cases if len(raw) < 600])
PIECES = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b":",
        b",",
        b";",
        b"\xff",
        b"/",
        b".",
        b"%2e",
        b"\x85",
        b"\xa0",
        b"?",
        b"#",
        b"\r\n\r\n",
        b"5",
        b"chunked",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"Content-Length: 3\r\n",
    ]
)
MUTATION = st.tuples(st.integers(0, 600), st.integers(0, 3), PIECES | st.binary(min_size=1, max_size=2))


@settings(max_examples=1500, deadline=None)
@given(SEEDS, st.lists(MUTATION, max_size=4))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [(0, 0, b"\r\n")])
def test_any_mutation_is_read_as_the_model_reads_it(raw: bytes, mutations: list[tuple[int, int, bytes]]) -> None:
    for position, removed, inserted in mutations:
        at = position % (len(raw) + 1)
        raw = raw[:at] + inserted + raw[at + removed :]
    end = raw.find(b"\r\n\r\n")
    raw = raw[: end + 4] if end >= 0 else raw
    expected, got = model(raw), gates(raw)
    assert got == expected or (isinstance(got, str) and isinstance(expected, str)), (
        raw
    )  # of two faults, either may be named


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    agree(raw + b"\r\n\r\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_passes_reaches_the_target_as_exactly_one_request(family: str) -> None:
    """Through the tunnel and out again: the model reads one request, with the same method, target and framing."""
    passed = 0
    for raw in FAMILIES[family]:
        try:
            came = parse_request_head(raw)
        except BadRequest:
            continue
        passed += 1
        headers = prepare_request_headers(came, peer="192.0.2.1", scheme="https")
        push = PushHead("t", "r-1", 1, "", "r", came.method, came.target, came.content_length, headers, came.upgrade)
        crossed = decode_push(encode_push(push))
        assert crossed == push
        out = serialize_request_head(
            crossed.method,
            crossed.path,
            crossed.headers,
            content_length=came.content_length,
            is_chunked=came.is_chunked,
        )
        assert out.count(b"\r\n\r\n") == 1
        assert out.endswith(b"\r\n\r\n")
        reading = read_request(out, max_fields=140)
        assert (reading.method, reading.target, reading.host) == (came.method, came.target, came.host)
        assert reading.length == (-1 if came.is_chunked else came.content_length)
        names = {name.lower() for name, _ in crossed.headers}
        assert not names & HOP_BY_HOP
    assert passed
