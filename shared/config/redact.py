"""A config as it may be shown to others: everything but secrets, and what senders or targets prove themselves by.

A field says that it is such by PRIVATE in its annotation. What stands behind a '?' may hold a key, and is cut off;
whatever is of a kind that nobody thought of is masked, too.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shared.config.model import PRIVATE, ConfigModel

MASK: Final = "***"

_PLAIN: Final = (bool, int, float, type(None))
_TEXTS: Final = (Path, enum.Enum, ipaddress.IPv4Network, ipaddress.IPv6Network)


def redacted(config: ConfigModel) -> dict[str, Any]:
    """All keys of the config with their values in force, JSON-able."""
    return {
        name: _masked(getattr(config, name)) if PRIVATE in field.metadata else _shown(getattr(config, name))
        for name, field in type(config).model_fields.items()
    }


def _shown(value: object) -> Any:
    if isinstance(value, ConfigModel):
        return redacted(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, str):
        return _without_query(value)
    if isinstance(value, _TEXTS) or hasattr(value, "_fields"):  # the latter: an address or a URL of ours
        return _without_query(str(value))
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    return MASK


def _masked(value: object) -> Any:
    """Its shape: which headers are set, how many hashes there are."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return dict.fromkeys(map(str, value), MASK)
    return [MASK for _ in value] if isinstance(value, list | tuple | set | frozenset) else MASK


def _without_query(text: str) -> str:
    before, mark, _ = text.partition("?")
    return f"{before}?{MASK}" if mark else text
