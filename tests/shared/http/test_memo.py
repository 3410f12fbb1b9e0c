"""What comes from memory is what would have been read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.gate import BadRequest
from shared.http.memo import MAX_SIZE, ResponseMemo, remember_request
from shared.http.push_head import HeadError, TemplateMemo, decode_template, encode_template
from shared.http.requests import parse_request_head
from shared.http.responses import parse_response_head

HEAD = b"POST /x?a=b HTTP/1.1\r\nHost: a\r\n%bX-Y: z\r\n\r\n"


def with_length(text: bytes, name: bytes = b"Content-Length: ") -> bytes:
    return HEAD % (name + text + b"\r\n")


@given(
    st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1), st.sampled_from([b"Content-Length: ", b"content-length:"])
)
def test_another_length_reads_as_parsing_it_would(first: int, second: int, name: bytes) -> None:
    raw = with_length(b"%d" % first, name)
    memo = remember_request(raw, parse_request_head(raw))
    assert memo is not None
    again = with_length(b"%d" % second, name)
    assert memo.read(again) == parse_request_head(again)
    assert memo.read(raw) == parse_request_head(raw)


@given(st.binary(max_size=24))
def test_whatever_stands_there_memory_accepts_no_more_than_the_gate(text: bytes) -> None:
    raw = with_length(b"12")
    memo = remember_request(raw, parse_request_head(raw))
    assert memo is not None
    again = with_length(text)
    if b"\r\n\r\n" in again[:-4]:
        return  # the connection would have cut it there
    read = memo.read(again)
    if read is not None:
        assert read == parse_request_head(again)


BAD_LENGTHS = [b"", b"012", b"+1", b"1 ", b" 1", b"1_0", b"\xb2", b"1, 1", b"1\r\nContent-Length: 1", b"9" * 17, b"0x1"]


@pytest.mark.parametrize("text", BAD_LENGTHS)
def test_no_odd_number_passes_from_memory(text: bytes) -> None:
    raw = with_length(b"12")
    memo = remember_request(raw, parse_request_head(raw))
    assert memo is not None
    read = memo.read(with_length(text))
    if read is not None:
        assert read == parse_request_head(with_length(text))
    else:
        try:
            parse_request_head(with_length(text))
        except BadRequest:
            pass


def test_an_upgrade_without_a_body_says_nothing_of_one_with_a_body() -> None:
    upgrade = HEAD % b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n"
    assert remember_request(upgrade % 0, parse_request_head(upgrade % 0)) is None
    with pytest.raises(BadRequest, match="upgrade-with-body"):
        parse_request_head(upgrade % 5)


def test_a_head_without_a_length_is_remembered_whole() -> None:
    raw = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    memo = remember_request(raw, parse_request_head(raw))
    assert memo is not None
    assert memo.read(raw) == parse_request_head(raw)
    assert memo.read(raw[:-2] + b"X: y\r\n\r\n") is None
    assert memo.read(with_length(b"1")) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n" + with_length(b"1"),
        HEAD % b"Odd_Name: x\r\n",
        HEAD % (b"X-Long: " + b"x" * MAX_SIZE + b"\r\n"),
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        HEAD % b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
        HEAD % b"Upgrade: h2c\r\nContent-Length: 1\r\n",
    ],
)
def test_odd_and_long_heads_are_not_remembered(raw: bytes) -> None:
    assert remember_request(raw, parse_request_head(raw)) is None


def test_an_answer_is_read_anew_when_a_byte_or_the_method_differs() -> None:
    memo = ResponseMemo()
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: now\r\n\r\n"
    other = raw.replace(b"now", b"new")
    assert memo.read(raw, b"POST") == parse_response_head(raw, b"POST")
    assert memo.read(raw, b"POST") is memo.read(raw, b"POST")
    assert memo.read(raw, b"HEAD") == parse_response_head(raw, b"HEAD")
    assert memo.read(other, b"POST") == parse_response_head(other, b"POST")


def test_a_relay_cannot_make_the_memory_of_templates_grow() -> None:
    memo = TemplateMemo()
    for number in range(5 * TemplateMemo.MAX_COUNT):
        memo.read(encode_template("t", "s", "r", b"POST", b"/%d" % number, [(b"Host", b"a")]))
        assert len(memo._known) <= TemplateMemo.MAX_COUNT
    long = encode_template("t", "s", "r", b"POST", b"/x", [(b"X", b"y" * TemplateMemo.MAX_SIZE)])
    assert memo.read(long).headers == decode_template(long).headers
    assert long not in memo._known
    with pytest.raises(HeadError):
        memo.read(b"nonsense")
