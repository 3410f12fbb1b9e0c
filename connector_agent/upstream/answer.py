"""A target's answer, read while it arrives: heads found and bounded by us, bodies counted, chunks decoded strictly.

Sans-I/O. One AnswerReader lives as long as its connection; `begin` makes it ready for the next answer, `feed` passes
on what it finds. A target is trusted no more than a sender: whatever is ambiguous raises BadResponse or BadChunk, and
the connection is of no further use.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from shared.http.chunked import ChunkedDecoder
from shared.http.gate import BadResponse, check_unfinished_response_head, find_head_end
from shared.http.memo import ResponseMemo
from shared.http.responses import ResponseHead, parse_response_head

MAX_INTERIM: Final = 32
"""Interim answers (1xx) to one push. A target that sends more does nothing else."""

MAX_PASSED_INTERIM: Final = 8
"""Of those, how many cross the tunnel."""

MAX_INTERIM_SIZE: Final = 4096
"""Bytes of the largest that does, as it crosses."""


class AnswerSink(Protocol):
    """What the reader calls, in this order; nothing comes after an `end`."""

    def on_interim(self, head: ResponseHead) -> None:
        """An interim answer other than 100."""

    def on_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        """The final answer's head with what there is of the body."""

    def on_body(self, data: bytes, end: bool) -> None:
        """More of the body; `data` may be empty when only the end came."""

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        """Instead of `on_head`: a 101 that was asked for. `data` and all that comes is not HTTP: the last call."""


class _State(enum.Enum):
    HEAD = "head"
    COUNTED = "counted"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"
    DONE = "done"


# An Enum's member behind a name of the module costs one look-up where `_State.HEAD` costs two.
_HEAD, _COUNTED, _CHUNKED, _UNTIL_CLOSE, _DONE = _State


class AnswerReader:
    """Reads one answer after the other.

    `has_bytes`: something of the present answer has arrived. `has_excess`: bytes came that belong to no answer.
    """

    __slots__ = (
        "_asks_upgrade",
        "_buffer",
        "_decoder",
        "_interim",
        "_left",
        "_memo",
        "_method",
        "_sink",
        "_state",
        "has_bytes",
        "has_excess",
    )

    def __init__(self) -> None:
        self._asks_upgrade = False
        self._buffer = bytearray()
        self._decoder: ChunkedDecoder | None = None
        self._interim = 0
        self._left = 0
        self._memo = ResponseMemo()
        self._method = b""
        self._sink: AnswerSink | None = None
        self._state = _DONE
        self.has_bytes = False
        self.has_excess = False

    @property
    def is_done(self) -> bool:
        """Whether the answer has ended, or none was asked for."""
        return self._state is _DONE

    def begin(self, method: bytes, sink: AnswerSink) -> None:
        """Expect the answer to a request with this method."""
        self._method = method
        self._asks_upgrade = False
        self._sink = sink
        self._state = _HEAD
        self._interim = 0
        self.has_bytes = False

    def expect_upgrade(self) -> None:
        """The request asked for a WebSocket: the answer may be one."""
        self._asks_upgrade = True

    def stop(self) -> None:
        """Let go of the sink; what arrives from now on is excess."""
        self._finish(b"")
        self._buffer.clear()

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived. Raises BadResponse or BadChunk; after that the connection must be closed."""
        self.has_bytes = True
        sink = self._sink
        if sink is None:
            self.has_excess = True
        elif self._state is _HEAD:
            self._feed_head(sink, data)
        else:
            self._feed_body(sink, data)

    def feed_eof(self) -> bool:
        """The target ended its side in good order. True if that properly ends the answer, which then is passed on."""
        sink = self._sink
        if sink is None or self._state is not _UNTIL_CLOSE:
            return sink is None
        self._finish(b"")
        sink.on_body(b"", end=True)
        return True

    def _feed_head(self, sink: AnswerSink, data: bytes) -> None:
        buffer = self._buffer
        searched = len(buffer)
        if searched:
            buffer += data
            data = bytes(buffer) if find_head_end(buffer, searched) >= 0 else b""
        while (end := find_head_end(data)) >= 0:
            if buffer:
                buffer.clear()
            if self._asks_upgrade:
                head = parse_response_head(data[:end], self._method, asked_upgrade=True)
            else:
                head = self._memo.read(data[:end], self._method)
            rest = data[end:]
            if head.status >= 200:
                self._begin_body(sink, head, rest)
                return
            if head.status == 101:
                self._finish(b"")
                sink.on_upgrade(head, rest)
                return
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadResponse("too many interim answers")
            if head.status != 100:
                sink.on_interim(head)
                if self._sink is not sink:
                    return
            data, searched = rest, 0
        # What is left is the beginning of a head, held and counted while it arrives.
        if not buffer:
            buffer += data
        check_unfinished_response_head(buffer, searched)
        if not buffer.startswith(b"HTTP/1."[: len(buffer)]):
            raise BadResponse("not an HTTP/1 answer")

    def _begin_body(self, sink: AnswerSink, head: ResponseHead, rest: bytes) -> None:
        length = head.content_length
        if not head.has_body or length == 0:
            self._finish(rest)
            sink.on_head(head, b"", end=True)
        elif length is not None:
            left = length - len(rest)
            if left > 0:
                self._left = left
                self._state = _COUNTED
                sink.on_head(head, rest, end=False)
            else:
                self._finish(rest[length:])
                sink.on_head(head, rest[:length], end=True)
        elif head.is_chunked:
            self._state = _CHUNKED
            self._decoder = ChunkedDecoder("target-malformed-answer")
            body, done, rest = self._decoder.feed(rest)
            if done:
                self._finish(rest)
            sink.on_head(head, body, end=done)
        else:
            self._state = _UNTIL_CLOSE
            sink.on_head(head, rest, end=False)

    def _feed_body(self, sink: AnswerSink, data: bytes) -> None:
        if self._state is _COUNTED:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                sink.on_body(data, end=False)
            else:
                size = self._left
                self._finish(data[size:])
                sink.on_body(data[:size], end=True)
        elif self._decoder is not None:
            body, done, rest = self._decoder.feed(data)
            if done:
                self._finish(rest)
            if body or done:
                sink.on_body(body, end=done)
        else:
            sink.on_body(data, end=False)

    def _finish(self, rest: bytes) -> None:
        """The answer is whole. Bytes behind it are nobody's, and end the connection's use."""
        self._state = _DONE
        self._sink = None
        self._decoder = None
        if rest:
            self.has_excess = True

    def __repr__(self) -> str:
        return f"<AnswerReader {self._state.value} {self._method.decode('ascii', 'replace')}>"
