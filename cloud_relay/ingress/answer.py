"""An answer's framing towards the sender (RFC 9112 §6): a head, and a body that is counted, chunked, or until the end.

The connector may be hostile. What it declares is held against what it sends, or else its surplus would be read as the
answer to the next push.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.errors import LocalFault
from shared.http.chunked import LAST_CHUNK, encode_chunk
from shared.http.responses import serialize_response_head

if TYPE_CHECKING:
    from shared.http.push_head import AnswerHead
    from shared.http.requests import RequestHead

_UNKNOWN: Final = -1
_CLOSE: Final = b"close"
_KEEP_ALIVE: Final = b"keep-alive"


class BadAnswer(LocalFault):
    """The connector sent more, or less, than it declared."""

    def __init__(self, detail: str) -> None:
        super().__init__("target-malformed-answer", detail)


class AnswerFraming:
    """Frames one answer. `keep_alive` says whether the connection can be used again after it.

    `head` is called once, with what there is of the body; then `more` until the end. Both raise BadAnswer.
    """

    __slots__ = ("_is_chunked", "_remaining", "keep_alive")

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self._is_chunked = False
        self._remaining = 0

    def head(self, answer: AnswerHead, body: bytes, end: bool, request: RequestHead) -> bytes:
        """Give the answer's head, and the first of its body, as one piece."""
        status, length, headers = answer
        if status < 200:
            raise BadAnswer("an interim status as the final one")
        is_old = request.version == (1, 0)
        if request.method == b"HEAD" or status == 204 or status == 304:
            if body:
                raise BadAnswer("a body where none may be")
            length = None if status == 204 else length
        elif length is None and not end:
            self._remaining = _UNKNOWN
            self._is_chunked = not is_old
            self.keep_alive = self.keep_alive and not is_old
        else:
            size = len(body)
            if length is None:
                length = size
            self._remaining = length - size
            if self._remaining < 0 or (end and self._remaining):
                raise BadAnswer("not as long as declared")
        if self.keep_alive:
            connection = _KEEP_ALIVE if is_old else None
        else:
            connection = _CLOSE
        head = serialize_response_head(
            status, headers, content_length=length, is_chunked=self._is_chunked, connection=connection
        )
        if not body:
            return head
        return head + encode_chunk(body) if self._is_chunked else head + body

    def more(self, data: bytes, end: bool) -> bytes:
        """Give the next piece of the body as it goes out; b"" if nothing does."""
        if self._is_chunked:
            framed = encode_chunk(data)
            return framed + LAST_CHUNK if end else framed
        if self._remaining != _UNKNOWN:
            self._remaining -= len(data)
            if self._remaining < 0 or (end and self._remaining):
                raise BadAnswer("not as long as declared")
        return data


class AnswerMemo:
    """The last whole answer of a connection, framed: a target repeats itself save for the second in Date."""

    __slots__ = ("_head", "_keep_alive", "_method", "_raw", "_size", "_version", "status")

    MAX_SIZE: Final = 4096

    def __init__(
        self, raw: bytes, body: bytes, data: bytes, request: RequestHead, status: int, keep_alive: bool
    ) -> None:
        self._raw = raw
        self._size = len(body)
        self._head = data[: len(data) - len(body)]
        self._keep_alive = keep_alive
        self._method = request.method
        self._version = request.version
        self.status = status

    def read(self, raw: bytes, body: bytes, request: RequestHead, keep_alive: bool) -> bytes | None:
        """What `AnswerFraming.head` gives for a whole answer; None if it is another than the remembered one."""
        if (
            raw != self._raw
            or len(body) != self._size
            or keep_alive is not self._keep_alive
            or request.method != self._method
            or request.version != self._version
        ):
            return None
        return self._head + body if body else self._head


def interim_head(answer: AnswerHead, request: RequestHead) -> bytes:
    """Give an informational answer as it goes out: none to HTTP/1.0, none that we speak ourselves (100, 101)."""
    if request.version == (1, 0) or not 102 <= answer.status < 200:
        return b""
    return serialize_response_head(answer.status, answer.headers)
