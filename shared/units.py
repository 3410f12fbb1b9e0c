"""Sizes, rates and durations as people write them in a config: "10MiB", "200/s", "500ms".

The parsers are strict: ASCII digits, at most one unit, nothing around them. What is ambiguous is refused with a
sentence that says how to write it: "10MB" is ten million bytes to some and 10 MiB to others.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

_SIZE: Final = re.compile(r"([0-9]{1,18})(?: ?(B|KiB|MiB|GiB|TiB))?", re.ASCII)
_RATE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)/(s|sec|min|h)", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|min|m|h|d)", re.ASCII)

_SIZE_FACTORS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_RATE_SECONDS: Final = {"s": 1, "sec": 1, "min": 60, "h": 3600}
_DURATION_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE_FORM: Final = "write bytes as a whole number, or with B, KiB, MiB, GiB or TiB: 10MiB"
_RATE_FORM: Final = "write a number for each s, min or h: 200/s, 1000/min"
_BYTE_RATE_FORM: Final = "write a size for each s, min or h: 10MiB/s"
_DURATION_FORM: Final = "write a number with ms, s, m, h or d, or a plain number of seconds: 5s, 500ms, 2m"


def parse_size(value: object) -> int:
    """Bytes. Takes "10MiB", "64KiB", "512", or a whole number; ValueError says what is wrong and how to write it."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{_shown(value)} is not a size; {_SIZE_FORM}")
    digits, unit = match.groups()
    return int(digits) * _SIZE_FACTORS[unit or "B"]


def parse_rate(value: object) -> float:
    """Events per second. Takes "200/s", "1000/min", "5/h"; ValueError says what is wrong and how to write it."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{_shown(value)} is not a rate; {_RATE_FORM}")
    number, unit = match.groups()
    return float(number) / _RATE_SECONDS[unit]


def parse_byte_rate(value: object) -> float:
    """Bytes per second. Takes "10MiB/s", "600KiB/min"; ValueError says what is wrong and how to write it."""
    size, slash, unit = value.rpartition("/") if isinstance(value, str) else ("", "", "")
    match = _SIZE.fullmatch(size)
    if match is None or not slash or unit not in _RATE_SECONDS or not int(match[1]):
        raise ValueError(f"{_shown(value)} is no rate of bytes; {_BYTE_RATE_FORM}")
    return parse_size(size) / _RATE_SECONDS[unit]


def parse_duration(value: object) -> float:
    """Seconds. Takes "5s", "500ms", "2m", or a number of seconds; ValueError says what is wrong and how to write it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{_shown(value)} is not a duration; {_DURATION_FORM}")
    number, unit = match.groups()
    return float(number) * _DURATION_SECONDS[unit]


def format_size(size: int) -> str:
    """The shortest exact way to write this many bytes: "10MiB", "1500"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_FACTORS[unit] == 0:
            return f"{size // _SIZE_FACTORS[unit]}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """For people, rounded: "350ms", "5s", "2m30s", "3d4h"; at most two units."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    rest, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])


def _shown(value: object) -> str:
    """What was written, short enough for a message; only numbers and texts, never a whole structure."""
    if isinstance(value, str):
        return f'"{value[:40]}"'.encode("unicode_escape").decode("ascii")
    if isinstance(value, int | float):
        return str(value)[:40]
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "nothing"


def _schema(pattern: re.Pattern[str], form: str, *numbers: str) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "pattern": f"^{pattern.pattern}$", "description": form}
    plain = [{"type": number, "minimum": 0} for number in numbers]
    return WithJsonSchema({"anyOf": [text, *plain]} if plain else text)


Size = Annotated[int, BeforeValidator(parse_size), _schema(_SIZE, _SIZE_FORM, "integer")]
"""A pydantic field of bytes; an int in the model. Bounds go on top: Annotated[Size, Field(ge=1024)]."""

Rate = Annotated[float, BeforeValidator(parse_rate), _schema(_RATE, _RATE_FORM)]
"""A pydantic field of events per second; a float in the model."""

ByteRate = Annotated[
    float,
    BeforeValidator(parse_byte_rate),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,18} ?(B|KiB|MiB|GiB|TiB)?/(s|sec|min|h)$"}),
]
"""A pydantic field of bytes per second; a float in the model."""

Duration = Annotated[float, BeforeValidator(parse_duration), _schema(_DURATION, _DURATION_FORM, "number")]
"""A pydantic field of seconds; a float in the model."""
