"""Where a head ends, what is refused before it has ended, and what a plain path is."""

from __future__ import annotations

import pytest

from shared.http.gate import (
    MAX_REQUEST_HEAD,
    MAX_REQUEST_LINE,
    MAX_RESPONSE_HEAD,
    BadRequest,
    BadResponse,
    check_unfinished_request_head,
    check_unfinished_response_head,
    find_head_end,
    is_plain_path,
)
from tests.shared.http.model import Refused, check_path

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n\r\n"


def test_the_end_is_found_wherever_the_segments_are_cut() -> None:
    raw = HEAD + b"body\r\n\r\n"
    for cut in range(len(HEAD)):
        assert find_head_end(raw[:cut]) == -1
        assert find_head_end(raw, cut) == len(HEAD)
        assert find_head_end(bytearray(raw), cut) == len(HEAD)


def test_an_unfinished_head_passes_byte_by_byte() -> None:
    for raw in (HEAD, b"\r\n" + HEAD):
        for size in range(len(raw) - 1):
            check_unfinished_request_head(bytearray(raw[:size]), max(0, size - 1))
            check_unfinished_request_head(raw[:size])


def feed_byte_by_byte(raw: bytes) -> None:
    for size in range(1, len(raw) + 1):
        check_unfinished_request_head(bytearray(raw[:size]), size - 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nA: b\n",
        b"GET / HTTP/1.1\r\nA\rb",
        b"\n",
        b"\r\n\n",
        b"\x16\x03\x01\x02",
        b"get /",
        b"\r\n\r\r",
    ],
)
def test_what_can_never_become_a_head_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        check_unfinished_request_head(raw)
    assert caught.value.fault.code == "malformed-request"
    with pytest.raises(BadRequest):
        feed_byte_by_byte(raw)


def test_sizes_are_judged_while_bytes_arrive() -> None:
    check_unfinished_request_head(b"GET /" + b"a" * (MAX_REQUEST_LINE - 6) + b"\r")
    with pytest.raises(BadRequest) as caught:
        check_unfinished_request_head(b"GET /" + b"a" * MAX_REQUEST_LINE)
    assert caught.value.fault.status == 414
    start = b"GET / HTTP/1.1\r\nA: "
    check_unfinished_request_head(start + b"a" * (MAX_REQUEST_HEAD - len(start) - 1))
    with pytest.raises(BadRequest) as caught:
        check_unfinished_request_head(start + b"a" * (MAX_REQUEST_HEAD - len(start)))
    assert caught.value.fault.status == 431
    with pytest.raises(BadResponse):
        check_unfinished_response_head(b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_RESPONSE_HEAD)
    with pytest.raises(BadResponse):
        check_unfinished_response_head(b"HTTP/1.1 200 OK\n")
    check_unfinished_response_head(b"HTTP/1.1 200 OK\r")


def test_every_single_encoded_byte_is_judged_as_the_model_judges_it() -> None:
    plain = 0
    for pattern in (
        b"/a%%%02x",
        b"/a%%%02Xb/c",
        b"/%%c3%%%02x",
        b"/%%e2%%82%%%02x",
        b"/%%%02x%%80%%80",
        b"/%%f0%%%02x%%80%%80",
    ):
        for byte in range(256):
            path = pattern % byte
            try:
                check_path(path)
            except Refused:
                assert not is_plain_path(path), path
            else:
                assert is_plain_path(path), path
                plain += 1
    assert plain > 300
