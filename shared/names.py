"""The names of tenants, locations, connectors, targets, senders and routes: one shape for all of them."""

from __future__ import annotations

import difflib
import re
from bisect import bisect
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator

MAX_NAME: Final = 63
"""Characters of the longest name: that of a DNS label, so that a name can become one."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)

NAME_RULE: Final = "1 to 63 characters of a-z, 0-9 and '-', the first of them no '-'"
"""The shape in words, for messages."""

_REACH: Final = 250
"""Of many names, those before and those after the mistyped one that are compared with it: ten milliseconds, in which a
relay that is asked does nothing else."""


def is_name(text: str) -> bool:
    """Whether `text` is a name. Nothing is stripped or folded first: 'A', 'a ' and 'a\\n' are none."""
    return _NAME.fullmatch(text) is not None


def suggestion(name: str, known: Iterable[str], most: int = 5) -> str:
    """A sentence about what may have been meant by a name that nobody has; "" where nothing is known."""
    names = sorted(set(known))
    at = bisect(names, name)
    if near := difflib.get_close_matches(name, names[max(0, at - _REACH) : at + _REACH], n=1):
        return f"Did you mean {near[0]}?"
    return f"Known here: {', '.join(names[:most])}{', …' if len(names) > most else ''}." if names else ""


def check_name(text: str) -> str:
    """Give `text` back, or raise ValueError with a message that repeats at most a bounded part of it."""
    if is_name(text):
        return text
    shown = text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"
    msg = f"{shown!r} is not a name: use {NAME_RULE}"
    raise ValueError(msg)


Name = Annotated[str, AfterValidator(check_name)]
"""A name, for pydantic models."""
