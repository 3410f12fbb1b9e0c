"""Chunked bodies (RFC 9112 §7.1), strict: no extensions, no bare LF, no trailers kept."""

from __future__ import annotations

import re
from typing import Final

from shared.errors import LocalFault

MAX_TRAILERS: Final = 8 * 1024
"""Bytes of a trailer section, its empty line included. They are dropped, but must be read."""

LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked body without trailers."""

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)\r\n")
_NEXT_SIZE: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,16}+)\r\n")
_SIZE_BEGUN: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,16}+\r?+)?+")
_NEXT_SIZE_BEGUN: Final = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]{1,16}+\r?+)?+)?+)?+")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")

_AT_SIZE: Final = 0
_IN_DATA: Final = 1
_AT_TRAILER: Final = 2
_DONE: Final = 3


class BadChunk(LocalFault):
    """A chunked body that is refused. Nothing behind it can be trusted: close the connection."""


def encode_chunk(data: bytes) -> bytes:
    """Make one chunk of `data`; nothing of nothing, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ChunkedDecoder:
    """Decodes one chunked body, fed in any pieces.

    `received` counts the body's bytes as they arrive, for limits. `code` is the fault that BadChunk carries.
    """

    __slots__ = ("_begun", "_code", "_pending", "_remaining", "_size", "_state", "_trailers", "received")

    def __init__(self, code: str = "malformed-request") -> None:
        self.received = 0
        self._code = code
        self._state = _AT_SIZE
        self._size = _SIZE  # how the next size line begins: the first one has no CRLF of a chunk before it
        self._begun = _SIZE_BEGUN
        self._remaining = 0  # of the chunk that is being read
        self._pending = b""  # the start of a size line or trailer line that is not whole yet
        self._trailers = 0

    @property
    def is_done(self) -> bool:
        """Whether the body's end has been seen."""
        return self._state == _DONE

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Take the next bytes; give the body's bytes in them, whether it ended, and what stands behind its end.

        Raises BadChunk, after which nothing more may be fed.
        """
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if self._state == _DONE:
            return b"", True, data
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        if self._state != _AT_TRAILER:
            position = self._read_chunks(data, pieces)
        if self._state == _AT_TRAILER:
            position = self._read_trailers(data, position)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.received += len(body)
        if self._state == _DONE:
            return body, True, data[position:] if position < end else b""
        return body, False, b""

    def _read_chunks(self, data: bytes, pieces: list[bytes]) -> int:
        """Read until the data or the last chunk ends; give the position reached."""
        position = 0
        end = len(data)
        remaining = self._remaining
        while position < end:
            if remaining:
                piece = data[position : position + remaining]
                pieces.append(piece)
                position += len(piece)
                remaining -= len(piece)
                if remaining:
                    break
            match = self._size.match(data, position)
            if match is None:
                if self._begun.fullmatch(data, position) is None:
                    raise BadChunk(self._code, "chunk size")
                self._pending = data[position:]
                break
            self._size = _NEXT_SIZE
            self._begun = _NEXT_SIZE_BEGUN
            position = match.end()
            remaining = int(match[1], 16)
            if not remaining:
                self._state = _AT_TRAILER
                break
        self._remaining = remaining
        return position

    def _read_trailers(self, data: bytes, position: int) -> int:
        """Read and drop trailer lines up to the empty line; give the position reached."""
        while True:
            stop = data.find(b"\r\n", position)
            if self._trailers + (stop + 2 if stop >= 0 else len(data)) - position > MAX_TRAILERS:
                raise BadChunk(self._code, "trailers too large")
            if stop < 0:
                self._pending = data[position:]
                if b"\n" in self._pending or b"\r" in self._pending[:-1]:
                    raise BadChunk(self._code, "bare CR or LF in a trailer")
                return position
            line = data[position:stop]
            self._trailers += stop + 2 - position
            position = stop + 2
            if not line:
                self._state = _DONE
                return position
            if _TRAILER.fullmatch(line) is None:
                raise BadChunk(self._code, "trailer")
