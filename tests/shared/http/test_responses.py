"""Answer heads: how a body is framed, what is refused, what is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.gate import BadResponse
from shared.http.responses import ResponseHead, parse_response_head, serialize_response_head


def parse(line: bytes, *fields: bytes, method: bytes = b"POST", asked_upgrade: bool = False) -> ResponseHead:
    raw = line + b"\r\n" + b"".join([f + b"\r\n" for f in fields]) + b"\r\n"
    return parse_response_head(raw, method, asked_upgrade=asked_upgrade)


def test_a_head_is_read() -> None:
    head = parse(
        b"HTTP/1.1 202 Taken",
        b"Content-Length: 5",
        b"Keep-Alive: timeout=5, max=100",
        b"Set-Cookie: a=b",
        b"Set-Cookie: c=d",
    )
    assert head.status == 202
    assert head.headers[2:] == [(b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")]
    assert (head.content_length, head.is_chunked, head.has_body, head.until_close) == (5, False, True, False)
    assert (head.keep_alive, head.keep_alive_timeout, head.dropped) == (True, 5.0, 0)


def test_one_literal_both_ways() -> None:
    raw = b"HTTP/1.1 207 Multi-Status\r\nX-A: b\r\nContent-Length: 3\r\n\r\n"
    head = parse_response_head(raw, b"GET")
    assert serialize_response_head(head.status, head.headers[:1], content_length=3) == raw
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    head = parse_response_head(raw, b"GET")
    assert (head.is_chunked, head.keep_alive) == (True, False)
    assert serialize_response_head(200, [], is_chunked=True, connection=b"close") == raw


@pytest.mark.parametrize(
    ("method", "line", "fields", "body"),
    [
        (b"POST", b"200 OK", [b"Content-Length: 0"], "length"),
        (b"POST", b"200 OK", [b"Transfer-Encoding: Chunked"], "chunked"),
        (b"POST", b"200 OK", [], "close"),
        (b"POST", b"500", [], "close"),
        (b"HEAD", b"200 OK", [b"Content-Length: 9"], "none"),
        (b"HEAD", b"200 OK", [b"Transfer-Encoding: chunked"], "none"),
        (b"HEAD", b"200 OK", [], "none"),
        (b"POST", b"204 No Content", [], "none"),
        (b"POST", b"304 Not Modified", [b"Content-Length: 9"], "none"),
        (b"POST", b"100 Continue", [], "none"),
        (b"POST", b"103 Early Hints", [b"Link: </a>"], "none"),
    ],
)
def test_where_the_body_ends(method: bytes, line: bytes, fields: list[bytes], body: str) -> None:
    head = parse(b"HTTP/1.1 " + line, *fields, method=method)
    assert head.has_body is (body != "none")
    assert head.until_close is (body == "close")
    assert head.keep_alive is (body != "close")
    if body in ("length", "chunked"):
        assert head.is_chunked is (body == "chunked")


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
        (b"1.1", [b"Connection: Upgrade, Keep-Alive", b"Upgrade: h2,h2c"], True),
        (b"1.1", [b"Connection: \xff"], False),
        (b"1.1", [b"Conne_ction: close"], False),
    ],
)
def test_whether_the_connection_lives_on(version: bytes, fields: list[bytes], keep_alive: bool) -> None:
    assert parse(b"HTTP/" + version + b" 200 OK", b"Content-Length: 0", *fields).keep_alive is keep_alive


def test_a_204_that_announces_a_body_ends_the_connection() -> None:
    assert not parse(b"HTTP/1.1 204 No Content", b"Content-Length: 5").keep_alive
    assert not parse(b"HTTP/1.1 204 No Content", b"Transfer-Encoding: chunked").keep_alive
    assert parse(b"HTTP/1.1 204 No Content", b"Content-Length: 0").keep_alive


def test_101_only_where_it_was_asked_for() -> None:
    fields = (b"Upgrade: websocket", b"Connection: Upgrade")
    assert parse(b"HTTP/1.1 101 Switching Protocols", *fields, method=b"GET", asked_upgrade=True).status == 101
    with pytest.raises(BadResponse):
        parse(b"HTTP/1.1 101 Switching Protocols", *fields, method=b"GET")


def test_odd_headers_are_dropped_and_a_delivered_push_stays_delivered() -> None:
    head = parse(
        b"HTTP/1.1 200 \xc3\x96K", b"Content-Length: 0", b"X_Y: 1", b"X-Z: \xff", b"A B: c", b"X-OK: 1 ", b"@: x"
    )
    assert head.headers == [(b"Content-Length", b"0"), (b"X-OK", b"1")]
    assert head.dropped == 4


REFUSED = [
    (b"HTTP/2.0 200 OK",),
    (b"HTTP/0.9 200 OK",),
    (b"HTTP/1.2 200 OK",),
    (b"http/1.1 200 OK",),
    (b"ICY 200 OK",),
    (b"HTTP/1.1 20 OK",),
    (b"HTTP/1.1 2000 OK",),
    (b"HTTP/1.1 099 OK",),
    (b"HTTP/1.1 600 OK",),
    (b"HTTP/1.1  200 OK",),
    (b"HTTP/1.1 200\tOK",),
    (b"HTTP/1.1 +20 OK",),
    (b"HTTP/1.1",),
    (b"200 OK",),
    (b"",),
    (b" HTTP/1.1 200 OK",),
    (b"HTTP/1.1 200 O\x00K",),
    (b"HTTP/1.1 200 O\rK",),
    (b"HTTP/1.1 200 O\nK",),
    (b"\r\nHTTP/1.1 200 OK",),
    (b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip, chunked"),
    (b"HTTP/1.1 200 OK", b"Transfer-Encoding: identity"),
    (b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"),
    (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    (b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Content-Length: 5"),
    (b"HTTP/1.1 200 OK", b"Content-Length: 05"),
    (b"HTTP/1.1 200 OK", b"Content-Length: -1"),
    (b"HTTP/1.1 200 OK", b"Content-Length: 5, 5"),
    (b"HTTP/1.1 200 OK", b"Content-Length:"),
    (b"HTTP/1.1 200 OK", b"Content-Length: 5\xff"),
    (b"HTTP/1.1 200 OK", b"Content_Length: 5"),
    (b"HTTP/1.1 200 OK", b"Content-Length : 5"),
    (b"HTTP/1.1 200 OK", b"Transfer-Encoding\x0b: chunked"),
    (b"HTTP/1.1 200 OK", b"X: y\r\n z"),
    (b"HTTP/1.1 200 OK", b"X: y\nZ: a"),
    (b"HTTP/1.1 200 OK", b"X: y\rZ: a"),
    (b"HTTP/1.1 200 OK", b"X"),
    (b"HTTP/1.1 200 OK", b": x"),
    (b"HTTP/1.1 200 OK", b" X: y"),
    (b"HTTP/1.1 200 OK", *([b"a:"] * 129)),
    (b"HTTP/1.1 200 OK", b"X: " + b"a" * 33000),
]


@pytest.mark.parametrize("lines", REFUSED)
def test_an_ambiguous_answer_is_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(BadResponse) as caught:
        parse(*lines)
    assert caught.value.fault.code == "target-malformed-answer"


@given(st.binary(max_size=80), st.booleans())
def test_arbitrary_bytes_raise_nothing_else(junk: bytes, begins_well: bool) -> None:
    try:
        parse_response_head((b"HTTP/1.1 200 OK\r\n" if begins_well else b"") + junk + b"\r\n\r\n", b"POST")
    except BadResponse:
        pass


@pytest.mark.parametrize("status", [99, 600, 0, -1])
def test_there_is_no_status_outside_the_range(status: int) -> None:
    with pytest.raises(KeyError):
        serialize_response_head(status, [])


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"a\r\nX: y", b"\r\n\r\nHTTP/1.1 200 OK"])
def test_an_answer_cannot_be_split(bad: bytes) -> None:
    for headers in ([(b"X", bad)], [(b"X" + bad, b"y")]):
        with pytest.raises(ValueError, match="split"):
            serialize_response_head(200, headers, content_length=0)
    with pytest.raises(ValueError, match="split"):
        serialize_response_head(200, [], content_length=0, connection=bad)
