"""What a kept connection says again and again is read once.

A sender repeats its head on every push of a connection, save the number in Content-Length; a target its answer's, save
the second in Date. A memo holds the last head and what it was read as. It answers only for the same bytes, or for the
same bytes around another canonical number, for which every gate and parser gives the same result: a test holds it to
that.
"""

from __future__ import annotations

import re
from typing import Final

from shared.http.requests import RequestHead
from shared.http.responses import ResponseHead, parse_response_head

MAX_SIZE: Final = 4096
"""Bytes of the largest head that is remembered: one a connection, and few senders say more."""

_LENGTH: Final = re.compile(rb"\r\nContent-Length: ?([0-9]{1,16})\r\n", re.IGNORECASE)


class RequestMemo:
    """A request head that was read, for the next one on its connection."""

    __slots__ = ("_after", "_before", "_end", "_start", "described", "head", "prepared", "prepared_for")

    def __init__(self, raw: bytes, head: RequestHead) -> None:
        found = _LENGTH.search(raw) if head.content_length is not None else None
        start, end = found.span(1) if found is not None else (len(raw), len(raw))
        self._before = raw[:start]
        self._after = raw[end:]
        self._start = start
        self._end = len(raw) - end
        self.head = head
        self.prepared: bytes = b""
        """What was made of the head for the tunnel, by whoever uses this memo, and …"""
        self.prepared_for: tuple[object, ...] = ()
        """… for whom."""
        self.described: str = ""
        """How its users' access lines begin."""

    def __repr__(self) -> str:
        return f"<RequestMemo {len(self._before) + len(self._after)} bytes>"

    def read(self, raw: bytes) -> RequestHead | None:
        """The head that `raw` is, if it is the one that is remembered with perhaps another Content-Length."""
        head = self.head
        if head.content_length is None:
            return head if raw == self._before else None
        if not raw.startswith(self._before) or not raw.endswith(self._after):
            return None
        number = raw[self._start : len(raw) - self._end]
        if not number.isdigit() or len(number) > 16 or (number[0] == 0x30 and len(number) > 1):
            return None
        length = int(number)
        if length == head.content_length:
            return head
        headers = [pair if pair[0].lower() != b"content-length" else (pair[0], number) for pair in head.headers]
        fields = head.fields | {b"content-length": number}
        return head._replace(content_length=length, headers=headers, fields=fields)


def remember_request(raw: bytes, head: RequestHead) -> RequestMemo | None:
    """A memo of `raw`, which was read as `head`; None for heads that are too long or too odd to be worth one."""
    if len(raw) > MAX_SIZE or head.dropped or raw.startswith(b"\r\n"):
        return None
    if b"upgrade" in head.fields:  # what may be a body beside it depends on the number
        return None
    if head.content_length is not None and len(_LENGTH.findall(raw)) != 1:
        return None
    return RequestMemo(raw, head)


class ResponseMemo:
    """Reads the answers of one connection, the last one perhaps from memory."""

    __slots__ = ("_head", "_method", "_raw")

    def __init__(self) -> None:
        self._raw = b""
        self._method = b""
        self._head: ResponseHead | None = None

    def read(self, raw: bytes, method: bytes) -> ResponseHead:
        """`parse_response_head`. Raises BadResponse."""
        head = self._head
        if head is not None and raw == self._raw and method == self._method:
            return head
        head = parse_response_head(raw, method)
        if len(raw) <= MAX_SIZE:
            self._raw, self._method, self._head = raw, method, head
        return head
