"""A JWT's outside (RFC 7515 §3.1): which issuer it names, by which key, before anything of it is believed.

What is read here only chooses who judges the token. Keys come from the config, never from the token: `jku`, `x5u`,
`jwk` and `x5c` are not looked at, and what is marked as critical is refused, since none of it is understood.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

import orjson

MAX_TOKEN: Final = 8192
"""Bytes of the longest JWT that is looked at. Real ones have one to three thousand."""

MAX_KEY_ID: Final = 256

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]{2,2048})\.([A-Za-z0-9_-]{2,8000})\.[A-Za-z0-9_-]{2,1400}")


class Outside(NamedTuple):
    """What a token claims. `has_critical`: its header demands something that is not understood here."""

    issuer: str
    algorithm: str
    key_id: str | None
    has_critical: bool


def read_outside(token: bytes) -> Outside | None:
    """What a token says of itself; None for what is no JWT, or names no issuer, algorithm or proper key id."""
    if len(token) > MAX_TOKEN:
        return None
    match = _COMPACT.fullmatch(token)
    if match is None:
        return None
    try:
        header, claims = (orjson.loads(_decode(part)) for part in match.groups())
    except (orjson.JSONDecodeError, binascii.Error):
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    issuer, algorithm, key_id = claims.get("iss"), header.get("alg"), header.get("kid")
    if not isinstance(issuer, str) or not isinstance(algorithm, str):
        return None
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID):
        return None
    return Outside(issuer, algorithm, key_id, "crit" in header or "b64" in header)


def _decode(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
