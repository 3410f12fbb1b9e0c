"""Answer heads: parsed from the target by the connector, written to the sender by the relay (RFC 9112 §4, §6)."""

from __future__ import annotations

import http
import re
from typing import Final, NamedTuple

import httptools

from shared.http.fields import CHUNKED, FramingError, body_length, combined, is_kept_alive, tokens
from shared.http.gate import (
    FIELD,
    MAX_FIELDS,
    MAX_RESPONSE_HEAD,
    NO_CALLBACKS,
    RESPONSE,
    RESPONSE_FRAMING,
    BadResponse,
    ParserError,
    ParserUpgrade,
    without_odd_fields,
)


class ResponseHead(NamedTuple):
    """An answer's head that has passed every gate.

    With `has_body`, the body is chunked, or `content_length` bytes, or lasts until the connection closes. Without it
    (HEAD, 1xx, 204, 304) `content_length` may still tell what GET would have given. `keep_alive_timeout` is in seconds.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    content_length: int | None
    is_chunked: bool
    keep_alive: bool
    keep_alive_timeout: float | None
    has_body: bool
    until_close: bool
    dropped: int
    fields: dict[bytes, bytes]


_colon: Final = b": ".join
_TIMEOUT: Final = re.compile(rb"(?:^|[,;\s])timeout=\"?([0-9]{1,6})(?![0-9])", re.IGNORECASE)


def parse_response_head(raw: bytes, request_method: bytes, *, asked_upgrade: bool = False) -> ResponseHead:
    """Parse an answer's head: exactly the bytes up to and including the empty line.

    Raises BadResponse, after which the connection has to be closed. 101 passes only where the request asked for a
    WebSocket, and the answer says that it is one (RFC 6455 §4.1).
    """
    match = RESPONSE.fullmatch(raw)
    if match is None or len(raw) > MAX_RESPONSE_HEAD:
        raw, match, dropped = _admit_unusual(raw)
    else:
        dropped = 0
    minor, code, block = match.groups()
    status = int(code)
    headers = FIELD.findall(block)
    fields = {name.lower(): value for name, value in headers}
    if len(fields) != len(headers):
        fields = combined(headers)

    is_http11 = minor == b"1"
    length = None
    try:
        length = body_length(fields, is_http11)
        httptools.HttpResponseParser(NO_CALLBACKS).feed_data(raw)
    except ParserUpgrade:
        pass
    except (FramingError, ParserError) as error:
        raise BadResponse(str(error)) from error

    connection = fields.get(b"connection")
    keep_alive = is_http11 if connection is None else is_kept_alive(connection, is_http11)
    has_body = status >= 200 and status != 204 and status != 304
    until_close = False
    if not has_body:
        if status == 101:
            _check_upgrade(fields, asked_upgrade and is_http11, length)
        if length and status != 304:
            keep_alive = False  # RFC 9110 §8.6 forbids it; a server that announces a body there may well send one
    elif request_method == b"HEAD":
        has_body = False
    elif length is None:
        until_close = True
        keep_alive = False
    timeout = _TIMEOUT.search(fields[b"keep-alive"]) if b"keep-alive" in fields else None
    return ResponseHead(
        status,
        headers,
        None if length == CHUNKED else length,
        length == CHUNKED,
        keep_alive,
        float(timeout[1]) if timeout is not None else None,
        has_body,
        until_close,
        dropped,
        fields,
    )


def _check_upgrade(fields: dict[bytes, bytes], asked: bool, length: int | None) -> None:
    """Refuse a 101 that nobody asked for, to anything but a WebSocket, or with a body."""
    if not asked:
        raise BadResponse("upgrade that nobody asked for")
    if fields.get(b"upgrade", b"").lower() != b"websocket" or b"upgrade" not in tokens(fields.get(b"connection", b"")):
        raise BadResponse("upgrade to something else than a WebSocket")
    if length:
        raise BadResponse("upgrade with a body")


def _admit_unusual(raw: bytes) -> tuple[bytes, re.Match[bytes], int]:
    """Judge a head that did not pass at first sight: give it without its odd lines, its match, and how many they were.

    Raises BadResponse with what is wrong.
    """
    if len(raw) > MAX_RESPONSE_HEAD:
        raise BadResponse("head too large")
    line, _crlf, rest = raw.partition(b"\r\n")
    if not rest.endswith(b"\r\n"):
        raise BadResponse("no empty line")
    cleaned = without_odd_fields(rest[:-2], RESPONSE_FRAMING)
    if isinstance(cleaned, str):
        raise BadResponse(cleaned)
    block, dropped = cleaned
    if block.count(b"\n") > MAX_FIELDS:
        raise BadResponse("too many headers")
    if b"connection" in dropped:  # what it said is not known, so it is taken to have said the worst
        block += b"Connection: close\r\n"
    raw = b"%b\r\n%b\r\n" % (line, block)
    match = RESPONSE.fullmatch(raw)
    if match is None:
        raise BadResponse("status line")
    return raw, match, len(dropped)


def _status_line(status: int) -> bytes:
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    return f"HTTP/1.1 {status} {reason}\r\n".encode("ascii")


_STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}


def serialize_response_head(
    status: int,
    headers: list[tuple[bytes, bytes]],
    *,
    content_length: int | None = None,
    is_chunked: bool = False,
    connection: bytes | None = None,
) -> bytes:
    """Write an answer's head, framed as said; the reason phrase comes from a table. `headers` hold no framing.

    `connection` is the value of our Connection header, if one is due: b"close", b"keep-alive".
    Raises ValueError rather than let a CR or LF that slipped through make two messages of one; KeyError for no status.
    """
    lines = [*map(_colon, headers)]
    if is_chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif content_length is not None:
        lines.append(b"Content-Length: %d" % content_length)
    if connection is not None:
        lines.append(b"Connection: " + connection)
    lines.append(b"\r\n")
    head = _STATUS_LINES[status] + b"\r\n".join(lines)
    ends = len(lines) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise ValueError("an answer's head would be split")
    return head
