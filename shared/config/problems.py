"""What is wrong with a config, where, and in words that say what to change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

Key = tuple[str | int, ...]
"""The way to a value: names of mappings and indexes of lists, from the outermost inwards."""


class Problem(NamedTuple):
    """One thing that is wrong. `line` counts from 1. For the file as a whole, `line` is None and `key` ""."""

    path: Path
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """The config cannot be used; `problems` is never empty.

    `looked_at` are the files that were read or asked for before that, if a whole config was read.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        self.looked_at: tuple[Path, ...] = ()
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def dotted(key: Iterable[str | int]) -> str:
    """("tenants", "acme", "routes", 0) as `tenants.acme.routes[0]`; an unusual name is shown as `["like this"]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            shown = part[:60].encode("unicode_escape").decode("ascii")
            text += f'["{shown}"]'
    return text
