"""`Location` on its way back: what points at the target is turned to the route, what points elsewhere is dropped."""

from __future__ import annotations

import re
from typing import Final

_ORIGIN: Final = re.compile(rb"(?:(https?):)?//([^/?#]*)", re.IGNORECASE)
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_CLEAN: Final = re.compile(rb"[!-\[\]-~]*")
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


def _authority(scheme: bytes, authority: bytes) -> bytes:
    authority = authority.lower()
    port = _DEFAULT_PORTS[scheme]
    return authority.removesuffix(port) if authority.endswith(port) else authority.removesuffix(b":")


def rewrite_location(value: bytes, target_url: bytes, route_prefix: bytes = b"") -> bytes | None:
    """Turn a target's Location into one that the sender can follow through the route, or give None: drop it.

    `target_url` is `scheme://host[:port][/base]` of the target; its base path is taken off, `route_prefix` put in its
    place. The result has no origin, so the sender's own stays (RFC 9110 §10.2.2). Relative references pass as they are.
    """
    base_match = _ORIGIN.match(target_url)
    if base_match is None or base_match[1] is None or _CLEAN.fullmatch(value) is None:
        return None
    scheme = base_match[1].lower()
    base = target_url[base_match.end() :].rstrip(b"/")
    match = _ORIGIN.match(value)
    if match is not None:
        if (match[1] or scheme).lower() != scheme:
            return None
        if _authority(scheme, match[2]) != _authority(scheme, base_match[2]):
            return None
        rest = value[match.end() :]
        if not rest.startswith(b"/"):
            rest = b"/" + rest
    elif value.startswith(b"/"):
        rest = value
    else:
        return None if _SCHEME.match(value) else value
    if base:
        if not rest.startswith(base) or rest[len(base) : len(base) + 1] not in (b"", b"/", b"?", b"#"):
            return None
        rest = rest[len(base) :] or b"/"
    rewritten = route_prefix + rest
    return None if rewritten.startswith(b"//") else rewritten
