"""Which headers pass, and which the relay sets (RFC 9110 §7.6, RFC 7239).

Whether a name passes is decided once per direction and kept in a bounded cache (1,024 names of at most 128 bytes):
the hot path costs one cached call a header.
"""

from __future__ import annotations

import functools
from typing import Final

from shared.http.fields import tokens
from shared.http.requests import RequestHead

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"expect",
        b"content-length",
    }
)
"""Of one connection only (RFC 9110 §7.6.1), or framing that is written anew on the next one."""

SPOOFABLE: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        b"x-request-id",
    }
)
"""Say where a request came from: only the relay may. With them everything that begins with X-Forwarded-."""

OVERRIDES: Final = frozenset(
    {
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-original-host",
        b"proxy",
    }
)
"""Make some servers act on another method, path or host than those that were checked ("Proxy": CGI's HTTP_PROXY)."""

PROTECTED: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"range",
        b"location",
        b"retry-after",
        b"www-authenticate",
        b"cache-control",
        b"idempotency-key",
        b"traceparent",
        b"tracestate",
    }
)
"""Stay even if Connection names them: they are meant for the far end, and a message means another thing without."""

_CREDENTIALS: Final = frozenset({b"authorization", b"cookie"})
_CONTROL: Final = b"qanat-"
_REQUEST_PREFIXES: Final = (b"x-forwarded-", _CONTROL)
_REQUEST_DROPPED: Final = HOP_BY_HOP | SPOOFABLE | OVERRIDES
_ANSWER_DROPPED: Final = HOP_BY_HOP | {b"alt-svc"}
_PLAIN_OPTIONS: Final = frozenset({b"keep-alive", b"close", b"upgrade", b"te"})


@functools.lru_cache(maxsize=1024)
def _passes_with_credentials(name: bytes) -> bool:
    name = name.lower()
    return name not in _REQUEST_DROPPED and not name.startswith(_REQUEST_PREFIXES)


@functools.lru_cache(maxsize=1024)
def _passes(name: bytes) -> bool:
    return name.lower() not in _CREDENTIALS and _passes_with_credentials(name)


@functools.lru_cache(maxsize=1024)
def passes_to_sender(name: bytes) -> bool:
    """Tell whether a header of a target's answer may reach the sender."""
    name = name.lower()
    return name not in _ANSWER_DROPPED and not name.startswith(_CONTROL)


@functools.lru_cache(maxsize=1024)
def passes_to_target(name: bytes) -> bool:
    """Tell whether a header out of the tunnel may reach the target; the relay's own forwarding headers do."""
    name = name.lower()
    return (
        name not in HOP_BY_HOP and name not in OVERRIDES and name != b"x-request-id" and not name.startswith(_CONTROL)
    )


def strip_named(headers: Headers, connection: bytes) -> Headers:
    """Drop what a Connection header names, save what is PROTECTED (RFC 9110 §7.6.1)."""
    named = set(tokens(connection)) - PROTECTED
    return [pair for pair in headers if pair[0].lower() not in named]


def strip_hop_by_hop(headers: Headers) -> Headers:
    """Drop the headers of one connection and what its Connection header names."""
    kept = [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP]
    for name, value in headers:
        if name.lower() == b"connection":
            kept = strip_named(kept, value)
    return kept


def prepare_request_headers(head: RequestHead, *, peer: str, scheme: str, pass_authorization: bool = False) -> Headers:
    """Give the headers that go through the tunnel: the sender's without hop-by-hop and spoofed ones, then the relay's.

    `peer` is the sender's IP address. Host stays among them; Content-Length and Transfer-Encoding do not, the body's
    framing is told apart, and so is the request id, which the connector makes a header of. Authorization and Cookie
    stay only with `pass_authorization`.
    """
    passes = _passes_with_credentials if pass_authorization else _passes
    headers = [pair for pair in head.headers if passes(pair[0])]
    connection = head.fields.get(b"connection")
    if connection is not None and connection.lower() not in _PLAIN_OPTIONS:
        headers = strip_named(headers, connection)
    headers += _forwarding(peer, scheme, head.host, head.version)
    return headers


@functools.lru_cache(maxsize=1024)
def _forwarding(peer: str, scheme: str, host: bytes, version: tuple[int, int]) -> tuple[tuple[bytes, bytes], ...]:
    """The relay's own forwarding headers. The cache is bounded, and so is a host (the gate lets 260 bytes pass)."""
    address = peer.partition("%")[0]
    node = f'"[{address}]"' if ":" in address else address
    name = host.decode("ascii")
    quoted = f'"{name}"' if ":" in name else name
    return (
        (b"Forwarded", f"for={node};host={quoted};proto={scheme}".encode("ascii")),
        (b"X-Forwarded-For", address.encode("ascii")),
        (b"X-Forwarded-Host", host),
        (b"X-Forwarded-Proto", scheme.encode("ascii")),
        (b"Via", b"%d.%d qanat" % version),
    )


def prepare_answer_headers(headers: Headers) -> Headers:
    """Give the headers of a target's answer that go to the sender: no hop-by-hop, framing, Qanat-* or Alt-Svc ones."""
    kept = [pair for pair in headers if passes_to_sender(pair[0])]
    if len(kept) != len(headers):
        for name, value in headers:
            if name.lower() == b"connection" and value.lower() not in _PLAIN_OPTIONS:
                kept = strip_named(kept, value)
    return kept
