"""One line a push, as JSON, at about a microsecond: collected for a hundredth of a second, and written at once.

The loop must never wait for whoever reads the log. A file is written to directly. A pipe, terminal or socket is written
to only while the kernel says that it takes something, and then at most PIPE_BUF bytes at a time: Linux promises that
such a write does not block, and that on a pipe it arrives whole, so lines of several writers do not mix. What does not
fit stays in a bounded buffer; beyond it lines are dropped and counted, and the log says so once it flows again.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.logs import utc_now

MAX_PENDING: Final = 4 << 20
"""Bytes kept for a slow reader: some ten thousand lines, a second or two at full speed."""

_CHUNK: Final = select.PIPE_BUF
_GATHER: Final = 0.01
"""Seconds for which lines are collected. What a crash may lose, against a system call for every turn of the loop."""
_RETRY: Final = 0.05
_NEWLINE: Final = 0x0A
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE


_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))

_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def timestamp(at: float) -> str:
    """Unix time as RFC 3339 in UTC, to the millisecond, for a line; the last second's text is kept."""
    global _second  # one entry, replaced whole
    second = int(at)
    if _second[0] != second:
        _second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return _second[1] + _MILLISECONDS[int((at - second) * 1000)]


class AccessLog:
    """Writes records to a file descriptor that somebody else owns. All calls come from the event loop's thread."""

    __slots__ = (
        "_fd",
        "_gather",
        "_is_cut",
        "_is_file",
        "_is_scheduled",
        "_lines",
        "_loop",
        "_mark",
        "_max_pending",
        "_poll",
        "_told",
        "dropped",
        "pending",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        max_pending: int = MAX_PENDING,
        gather: float = _GATHER,
        always: Mapping[str, object] | None = None,
    ) -> None:
        """`always` are values at the end of every line: which of several processes writes it."""
        self._mark = b"," + orjson.dumps(always)[1:] + b"\n" if always else b""
        self.dropped = 0
        """Lines lost for good so far, because the reader was too slow or the disk full."""
        self.pending = 0
        """Bytes that wait for the reader."""
        self._told = 0
        self._loop = loop
        self._gather = gather
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        self._max_pending = max_pending
        self._is_scheduled = False
        self._is_cut = False

    def line(self, record: Mapping[str, Any]) -> None:
        """Queue one record. Never blocks, never raises for its values."""
        try:
            line = orjson.dumps(record, None, _OPTIONS)
        except TypeError:  # a surrogate in a text, or a type of somebody's own
            line = orjson.dumps(_harmless(record), None, _OPTIONS)
        self.text(line)

    def text(self, line: bytes) -> None:
        """Queue one line that is JSON already, its newline included."""
        if self.pending >= self._max_pending:
            self.dropped += 1
            return
        if self._mark:
            line = line[:-2] + self._mark  # in the place of its "}" and newline
        if self._is_cut:  # half a line is all that a full disk took of the last one
            self._is_cut = False
            line = b"\n" + line
        self.pending += len(line)
        self._lines.append(line)
        if not self._is_scheduled:
            self._is_scheduled = True
            if self._gather:
                self._loop.call_later(self._gather, self._write)
            else:
                self._loop.call_soon(self._write)

    def flush(self, patience: float = 0.5) -> None:
        """For the shutdown: write all, waiting at most `patience` seconds for a reader; the rest counts as dropped."""
        self._drain(patience)
        self._lose()

    def _write(self) -> None:
        self._is_scheduled = False
        is_flowing = self._drain()
        if self._lines:
            self._is_scheduled = True
            self._loop.call_later(_RETRY, self._write)
        elif is_flowing and self.dropped > self._told:
            count, self._told = self.dropped - self._told, self.dropped
            self.line({"time": utc_now(), "event": "access lines were dropped", "count": count})

    def _drain(self, patience: float = 0.0) -> bool:
        """Write what the reader takes. False if it is gone: what waited is lost then."""
        end = time.monotonic() + patience
        is_within = False
        while self._lines:
            if not self._is_file and not self._poll.poll(max(0.0, end - time.monotonic()) * 1000):
                break
            chunk = self._next_chunk()
            try:
                written = os.write(self._fd, chunk)
            except BlockingIOError:
                written = 0
            except OSError:
                # The disk is full, or the reader is gone: keep nothing for it, and start anew with the next line.
                self._lose(chunk)
                self._is_cut = is_within
                return False
            if written:
                is_within = chunk[written - 1] != _NEWLINE
            self.pending -= written
            if written < len(chunk):
                self._lines.appendleft(chunk[written:])
            if not written:
                break
        return True

    def _next_chunk(self) -> bytes:
        """Takes the lines of one write: all of them for a file, else whole lines up to PIPE_BUF, or a piece of one."""
        lines = self._lines
        if self._is_file:
            chunk = b"".join(lines)
            lines.clear()
            return chunk
        first = lines.popleft()
        if len(first) > _CHUNK:
            lines.appendleft(first[_CHUNK:])
            return first[:_CHUNK]
        taken, size = [first], len(first)
        while lines and (size := size + len(lines[0])) <= _CHUNK:
            taken.append(lines.popleft())
        return b"".join(taken)

    def _lose(self, chunk: bytes = b"") -> None:
        """What waits, and `chunk`, is lost, as lines."""
        self.dropped += chunk.count(b"\n") + sum(line.count(b"\n") for line in self._lines)
        self._lines.clear()
        self.pending = 0


def _harmless(record: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value).encode("utf-8", "backslashreplace").decode() for key, value in record.items()}


class NoAccessLog:
    """Where access lines go when nobody wants them."""

    def line(self, record: object) -> None:
        """Drop it."""

    def text(self, line: bytes) -> None:
        """Nowhere either."""
