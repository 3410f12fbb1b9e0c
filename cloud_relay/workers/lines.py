"""JSON, one object a line, over a stream of a link: what workers tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

HEAD: Final = b"news"
"""The head of the stream by which a worker hears of another's tunnels. A push's has a NUL in it."""

MAX_LINE: Final = 64 * 1024


class Lines:
    """Puts lines together from what comes. ValueError for what is none: the two are of different versions."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that are whole now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise ValueError("a line without an end")
        for line in whole:
            parsed = orjson.loads(line)
            if not isinstance(parsed, dict):
                raise ValueError("a line that is no object")
            yield parsed


def line(record: Mapping[str, Any]) -> bytes:
    """One object as a line."""
    return orjson.dumps(record) + b"\n"
