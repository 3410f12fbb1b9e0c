"""Lines of JSON that one process appends to a file and another one reads as they come.

The writer writes a line before it does anything else about it, in one write(2): what a killed process had written is
there, whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson


class Writer:
    """Appends to `path`. Several processes, and several lives of one, may write to the same file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, **record: Any) -> None:
        os.write(self._fd, orjson.dumps(record, None, orjson.OPT_APPEND_NEWLINE))


class Reader:
    """Reads what was appended to `path` since the last call. Not `strict`, it leaves out lines that are cut off: a disk
    was full."""

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        self._path = path
        self._is_strict = strict
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The new records; a line that is not whole yet comes with the next call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        records = []
        for line in data[:whole].splitlines():
            try:
                records.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                if self._is_strict:
                    raise
        return records
