"""Request heads: parsed at the relay's ingress, written to the target by the connector (RFC 9112 §3, §6)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httptools

from shared.http.fields import CHUNKED, FramingError, body_length, checked_host, combined, is_kept_alive, tokens
from shared.http.gate import (
    FIELD,
    MAX_FIELDS,
    MAX_REQUEST_HEAD,
    MAX_REQUEST_LINE,
    NO_CALLBACKS,
    REQUEST,
    REQUEST_ANY_PATH,
    REQUEST_FRAMING,
    BadRequest,
    ParserError,
    ParserUpgrade,
    explain_request_line,
    is_plain_path,
    without_odd_fields,
)


class RequestHead(NamedTuple):
    """A request head that has passed every gate.

    `target` is the raw path[?query], `path` its part before the query. `headers` keep the names as received; odd ones
    are gone, `dropped` counts them. `fields` has every value by its lower-case name, those of one name joined by ", ".
    `content_length` is None without a Content-Length; with neither it nor `is_chunked` there is no body.
    `upgrade` is b"websocket" where a WebSocket is asked for, else None.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    headers: list[tuple[bytes, bytes]]
    host: bytes
    content_length: int | None
    is_chunked: bool
    keep_alive: bool
    expects_continue: bool
    upgrade: bytes | None
    dropped: int
    path: bytes
    fields: dict[bytes, bytes]

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow the head."""
        return self.is_chunked or bool(self.content_length)


_V10: Final = (1, 0)
_V11: Final = (1, 1)
_colon: Final = b": ".join


def parse_request_head(raw: bytes) -> RequestHead:
    """Parse a request head: exactly the bytes up to and including the empty line.

    Raises BadRequest, after which the connection has to be closed.
    """
    match = REQUEST.fullmatch(raw)
    if match is None or len(raw) > MAX_REQUEST_LINE:
        raw, match, dropped = _admit_unusual(raw)
    else:
        dropped = 0
    method, target, path, minor, block = match.groups()
    headers = FIELD.findall(block)
    fields = {name.lower(): value for name, value in headers}
    if len(fields) != len(headers):
        fields = combined(headers)

    host = checked_host(fields.get(b"host", b""))
    is_http11 = minor == b"1"
    parser = httptools.HttpRequestParser(NO_CALLBACKS)
    length = None
    try:
        length = body_length(fields, is_http11)
        parser.feed_data(raw)
    except ParserUpgrade:
        pass
    except (FramingError, ParserError) as error:
        raise BadRequest("malformed-request", str(error)) from error
    if parser.get_method() != method:
        raise BadRequest("malformed-request", "parsers disagree")

    connection = fields.get(b"connection")
    return RequestHead(
        method,
        target,
        _V11 if is_http11 else _V10,
        headers,
        host,
        None if length == CHUNKED else length,
        length == CHUNKED,
        is_http11 if connection is None else is_kept_alive(connection, is_http11),
        is_http11 and b"expect" in fields and fields[b"expect"].lower() == b"100-continue",
        None if connection is None or b"upgrade" not in fields else _websocket(match, fields, length),
        dropped,
        path,
        fields,
    )


def _websocket(match: re.Match[bytes], fields: dict[bytes, bytes], length: int | None) -> bytes | None:
    """Tell whether a WebSocket is asked for. Raises BadRequest if it is, with a body: two readings of what follows."""
    if fields[b"upgrade"].lower() != b"websocket" or b"upgrade" not in tokens(fields[b"connection"]):
        return None
    if length:
        raise BadRequest("upgrade-with-body")
    return b"websocket" if match[1] == b"GET" and match[4] == b"1" else None


def _admit_unusual(raw: bytes) -> tuple[bytes, re.Match[bytes], int]:
    """Judge a head that did not pass at first sight: give it without its odd lines, its match, and how many they were.

    Raises BadRequest with what is wrong.
    """
    line, crlf, rest = raw.removeprefix(b"\r\n").partition(b"\r\n")
    if crlf and len(line) > MAX_REQUEST_LINE:
        raise BadRequest("target-uri-too-long")
    if len(raw) > MAX_REQUEST_HEAD:
        raise BadRequest("headers-too-large")
    if not rest.endswith(b"\r\n"):
        raise BadRequest("malformed-request", "no empty line")
    cleaned = without_odd_fields(rest[:-2], REQUEST_FRAMING)
    if isinstance(cleaned, str):
        raise BadRequest("malformed-request", cleaned)
    block, dropped = cleaned
    if block.count(b"\n") > MAX_FIELDS:
        raise BadRequest("headers-too-large")
    raw = b"%b\r\n%b\r\n" % (line, block)
    match = REQUEST_ANY_PATH.fullmatch(raw)
    if match is None:
        raise explain_request_line(line)
    if not is_plain_path(match[3]):
        raise BadRequest("bad-path")
    return raw, match, len(dropped)


def serialize_request_start(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write a request line and headers that hold no framing. What frames the body, and an empty line, must follow.

    Raises ValueError rather than let a CR, LF or space that slipped through make two messages of one.
    """
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"\r\n".join(map(_colon, headers)))
    ends = len(headers) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b" " in target or b" " in method or not headers:
        raise ValueError("a request head would be split")
    return head


def serialize_request_head(
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    content_length: int | None = None,
    is_chunked: bool = False,
) -> bytes:
    """Write a whole request head, framed as said: Content-Length, chunked, or no body. Raises ValueError as above."""
    start = serialize_request_start(method, target, headers)
    if is_chunked:
        return start + b"Transfer-Encoding: chunked\r\n\r\n"
    if content_length is not None:
        return b"%bContent-Length: %d\r\n\r\n" % (start, content_length)
    return start + b"\r\n"
