"""The last warnings and errors of this process, in memory: for `diag`, where the log itself may be far away.

What is kept went through the log's own rules before: no secret, no header value, no payload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_LINES: Final = 1000
MAX_BYTES: Final = 512 * 1024
"""Of all lines together: a bug that logs tracebacks must not make the process grow."""

_KEPT: Final = frozenset({"warning", "error"})


class RecentLines:
    """A ring of log lines, bounded in number and in bytes; the oldest go first."""

    def __init__(self, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self.forgotten = 0

    def __repr__(self) -> str:
        return f"<RecentLines {len(self._lines)} lines, {self._bytes} bytes, {self.forgotten} forgotten>"

    def note(self, line: Mapping[str, Any]) -> None:
        """Keep a line that is ready to be written, if it is a warning or an error."""
        if line.get("level") not in _KEPT:
            return
        text = orjson.dumps(line, default=str)
        self._lines.append(text)
        self._bytes += len(text)
        while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft())
            self.forgotten += 1

    def lines(self) -> list[dict[str, Any]]:
        """From the oldest to the newest."""
        return [orjson.loads(line) for line in self._lines]


RECENT: Final = RecentLines()
"""Those of this process, as its log is the process's."""
