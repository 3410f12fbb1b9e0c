"""Bodies as they come in: where one ends, and whether it comes fast enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shared.http.chunked import ChunkedDecoder

if TYPE_CHECKING:
    from shared.http.requests import RequestHead


class BodyReader(Protocol):
    """Finds the end of one body. `shared.http.chunked.ChunkedDecoder` is the other one."""

    def feed(self, data: bytes, /) -> tuple[bytes, bool, bytes]:
        """Take bytes from the connection; give those of the body, whether it is complete, and what follows it."""


class LengthReader:
    """A body of a known length (RFC 9112 §6.2)."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def feed(self, data: bytes, /) -> tuple[bytes, bool, bytes]:
        """See BodyReader."""
        remaining = self.remaining
        size = len(data)
        if size < remaining:
            self.remaining = remaining - size
            return data, False, b""
        self.remaining = 0
        if size == remaining:
            return data, True, b""
        return data[:remaining], True, data[remaining:]


def begin_body(head: RequestHead, rest: bytes) -> tuple[bytes, bytes, BodyReader | None]:
    """Split what followed a head: the first of its body, what is behind the body, a reader if more of it has to come.

    Raises BadChunk.
    """
    length = head.content_length
    if head.is_chunked:
        reader = ChunkedDecoder()
        body, whole, rest = reader.feed(rest) if rest else (b"", False, b"")
        return body, rest, None if whole else reader
    if not length:
        return b"", rest, None
    missing = length - len(rest)
    if missing > 0:
        return rest, b"", LengthReader(missing)
    if missing == 0:
        return rest, b"", None
    return rest[:length], rest[length:], None


class Pace:
    """Judges whether a sender brings its body fast enough: `rate` bytes a second on average over each `window`.

    While we do not read, because the tunnel is full, the window stands still. Times are monotonic seconds.
    """

    __slots__ = ("_paused_at", "_received", "_window_end", "needed", "window")

    def __init__(self, rate: int, window: float, now: float) -> None:
        self.needed = rate * window
        self.window = window
        self._window_end = now + window
        self._received = 0
        self._paused_at = 0.0

    def count(self, size: int) -> None:
        """`size` bytes arrived."""
        self._received += size

    def pause(self, now: float) -> None:
        """We stopped reading."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """We read again: the pause does not count."""
        if self._paused_at:
            self._window_end += now - self._paused_at
            self._paused_at = 0.0

    def due(self, now: float) -> float:
        """When to ask `is_too_slow` next."""
        if self._paused_at:
            return self._window_end + now - self._paused_at
        return self._window_end

    def is_too_slow(self, now: float) -> bool:
        """Whether the window that ended brought too little; if it did not, the next one begins."""
        if self._paused_at or now < self._window_end:
            return False
        if self._received < self.needed:
            return True
        self._received = 0
        self._window_end = now + self.window
        return False
