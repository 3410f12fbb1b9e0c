"""What the files of a config held when it was read, so that another process reads the same, whatever they hold by then.

edition = Edition()                         # reads from the disk, and keeps what it has read
loaded = read_config(path, model, edition=edition)
Edition.from_bytes(edition.to_bytes())      # knows these files and no others
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from shared.config.problems import ConfigError, Problem
from shared.config.tree import read_file


class Edition:
    """Files by path, and by folder and pattern which of them an `include` has found."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._found: dict[str, list[str]] = {}
        self._is_whole = False

    def __repr__(self) -> str:  # never what is in them
        return f"<Edition of {len(self._files)} files>"

    @classmethod
    def from_bytes(cls, data: bytes) -> Edition:
        """What `to_bytes` gave. ValueError for anything else."""
        try:
            given = orjson.loads(data)
            edition = cls()
            edition._files = {str(path): text.encode("latin-1") for path, text in given["files"].items()}
            edition._found = {str(key): [str(path) for path in paths] for key, paths in given["found"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no edition of a config: {error}") from error
        edition._is_whole = True
        return edition

    def to_bytes(self) -> bytes:
        """All of it. As secret as the files are."""
        files: dict[str, Any] = {path: data.decode("latin-1") for path, data in self._files.items()}
        return orjson.dumps({"files": files, "found": self._found}, option=orjson.OPT_SORT_KEYS)

    def read(self, path: Path) -> bytes:
        """What the file holds. ConfigError if it cannot be read, or was not when the edition was made."""
        known = self._files.get(str(path))
        if known is not None:
            return known
        if self._is_whole:
            raise ConfigError([Problem(path, None, "", "was not there when the config was read")])
        data = self._files[str(path)] = read_file(path)
        return data

    def matches(self, folder: Path, pattern: str) -> list[Path]:
        """The files that `pattern` means, in order."""
        key = f"{folder}\0{pattern}"
        if self._is_whole or key in self._found:
            return [Path(path) for path in self._found.get(key, ())]
        found = sorted(_matches(folder, pattern))
        self._found[key] = [str(path) for path in found]
        return found


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    anchor = Path(pattern).anchor
    root, relative = (Path(anchor), pattern[len(anchor) :]) if anchor else (folder, pattern)
    try:
        # Hidden files are left out: editors and Kubernetes keep their own copies under such names.
        yield from (p for p in root.glob(relative) if p.is_file() and not p.name.startswith("."))
    except (ValueError, NotImplementedError, IndexError):  # an empty pattern, or "**x"
        return
