"""Request heads: one literal, both ways; what is read out of one; what is refused, with which status."""

from __future__ import annotations

import pytest

from shared.http.gate import BadRequest
from shared.http.requests import parse_request_head, serialize_request_head

RAW = (
    b"POST /sap/frun?sid=PRD HTTP/1.1\r\n"
    b"Host: Push.Example.com:8443\r\n"
    b"Content-Type: application/json\r\n"
    b"X-Empty: \r\n"
    b"Content-Length: 2048\r\n"
    b"\r\n"
)


def test_a_head_is_read() -> None:
    head = parse_request_head(RAW)
    assert head.method == b"POST"
    assert (head.target, head.path) == (b"/sap/frun?sid=PRD", b"/sap/frun")
    assert head.version == (1, 1)
    assert head.host == b"push.example.com:8443"
    assert head.headers[:2] == [(b"Host", b"Push.Example.com:8443"), (b"Content-Type", b"application/json")]
    assert head.fields[b"content-type"] == b"application/json"
    assert head.fields[b"x-empty"] == b""
    assert (head.content_length, head.is_chunked, head.has_body) == (2048, False, True)
    assert (head.keep_alive, head.expects_continue, head.upgrade, head.dropped) == (True, False, None, 0)


def test_one_literal_both_ways() -> None:
    raw = b"PUT /a/b?c HTTP/1.1\r\nHost: a\r\nX-A: b\r\nContent-Length: 3\r\n\r\n"
    head = parse_request_head(raw)
    assert serialize_request_head(head.method, head.target, head.headers[:-1], content_length=3) == raw
    raw = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = parse_request_head(raw)
    assert head.is_chunked
    assert serialize_request_head(head.method, head.target, head.headers[:-1], is_chunked=True) == raw


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive\r\n", True),
        (b"1.1", b"Connection: x, CLOSE ,y\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_whether_the_connection_lives_on(line: bytes, fields: bytes, keep_alive: bool) -> None:
    assert parse_request_head(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (line, fields)).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("version", "value", "expects"),
    [
        (b"1.1", b"100-continue", True),
        (b"1.1", b"100-Continue", True),
        (b"1.0", b"100-continue", False),
        (b"1.1", b"x", False),
    ],
)
def test_expect(version: bytes, value: bytes, expects: bool) -> None:
    head = parse_request_head(b"PUT / HTTP/%b\r\nHost: a\r\nExpect: %b\r\nContent-Length: 1\r\n\r\n" % (version, value))
    assert head.expects_continue is expects


@pytest.mark.parametrize(
    ("method", "version", "upgrade", "connection", "asked"),
    [
        (b"GET", b"1.1", b"websocket", b"Upgrade", True),
        (b"GET", b"1.1", b"WebSocket", b"keep-alive, upgrade", True),
        (b"GET", b"1.1", b"websocket", b"keep-alive", False),
        (b"GET", b"1.1", b"h2c", b"Upgrade, HTTP2-Settings", False),
        (b"POST", b"1.1", b"websocket", b"upgrade", False),
        (b"GET", b"1.0", b"websocket", b"upgrade", False),
    ],
)
def test_upgrade(method: bytes, version: bytes, upgrade: bytes, connection: bytes, asked: bool) -> None:
    raw = b"%b / HTTP/%b\r\nHost: a\r\nUpgrade: %b\r\nConnection: %b\r\n\r\n" % (method, version, upgrade, connection)
    assert parse_request_head(raw).upgrade == (b"websocket" if asked else None)


def test_an_upgrade_to_something_else_may_have_a_body() -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\n"
    assert parse_request_head(raw).content_length == 5


def test_odd_headers_that_frame_nothing_are_dropped_and_counted() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nX-Name: J\xc3\xb6rg\r\nX-Z: 2 \t\r\n(x): y\r\n\r\n"
    head = parse_request_head(raw)
    assert head.headers == [(b"Host", b"a"), (b"X-Z", b"2")]
    assert head.dropped == 3


def test_one_empty_line_before_a_request_is_let_pass() -> None:
    assert parse_request_head(b"\r\n" + RAW) == parse_request_head(RAW)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 400),
        (b"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 33000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\n", 400),
    ],
)
def test_refusals_have_their_status(raw: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_request_head(raw)
    assert caught.value.fault.status == status


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\r\n", b"a\r\nX: y", b"\r\n\r\nGET / HTTP/1.1"])
def test_a_request_cannot_be_split(bad: bytes) -> None:
    for method, target, headers in (
        (b"GET" + bad, b"/", [(b"Host", b"a")]),
        (b"GET", b"/" + bad, [(b"Host", b"a")]),
        (b"GET", b"/", [(b"Host", b"a" + bad)]),
        (b"GET", b"/", [(b"Host", b"a"), (b"X" + bad, b"")]),
    ):
        with pytest.raises(ValueError, match="split"):
            serialize_request_head(method, target, headers)
    with pytest.raises(ValueError, match="split"):
        serialize_request_head(b"GET", b"/ HTTP/1.0", [(b"Host", b"a")])
