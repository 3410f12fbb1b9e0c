"""What single fields say: where the body ends, whether the connection lives on, which host is meant."""

from __future__ import annotations

import functools
import re
from typing import Final

from shared.http.gate import HOST, BadRequest

LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,15}")
"""Content-Length in its one canonical spelling; sixteen digits fit any file and no overflow."""

CHUNKED: Final = -1
"""What `body_length` gives for a chunked body."""

MAX_HOST: Final = 262
"""Bytes of host:port: a DNS name of 253, a dot, a colon and five digits, rounded up."""


@functools.lru_cache(maxsize=1024)
def checked_host(value: bytes) -> bytes:
    """Give a Host value, `host[:port]` or `[IPv6][:port]`, in lower case; raise BadRequest if it is neither.

    Only what is good is cached, at most 1,024 times MAX_HOST bytes: a stranger may empty the cache, not fill memory.
    """
    if len(value) > MAX_HOST or HOST.fullmatch(value) is None:
        raise BadRequest("malformed-request", "host")
    return value.lower()


def combined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Make lower-case names to values, those of one name joined by a comma (RFC 9110 §5.2)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def tokens(value: bytes) -> list[bytes]:
    """Split a comma list of tokens, lower-cased, empty members dropped (RFC 9110 §5.6.1)."""
    return [token for item in value.lower().split(b",") if (token := item.strip(b" \t"))]


class FramingError(ValueError):
    """Content-Length and Transfer-Encoding do not say clearly where the body ends."""


def body_length(fields: dict[bytes, bytes], is_http11: bool) -> int | None:
    """Read the framing of a body: its Content-Length, CHUNKED, or None where nothing is said. Raises FramingError.

    RFC 9112 §6.1 and §6.3, without the leniencies: `chunked` alone, never beside a length and never in HTTP/1.0.
    """
    length = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"].lower() != b"chunked" or length is not None or not is_http11:
            raise FramingError("transfer-encoding")
        return CHUNKED
    if length is None:
        return None
    if LENGTH.fullmatch(length) is None:
        raise FramingError("content-length")
    return int(length)


def is_kept_alive(connection: bytes, is_http11: bool) -> bool:
    """Judge by a Connection header whether the connection may be used again (RFC 9112 §9.3)."""
    options = tokens(connection)
    return b"close" not in options and (is_http11 or b"keep-alive" in options)
