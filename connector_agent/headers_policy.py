"""Which headers of a push reach a target, which ones this side adds, and where an answer's Location leads.

The credential that a target wants is added here and never leaves the data center. Headers of one connection, and those
that override method or path, were dropped when the push's head was decoded; here go the ones by which a relay in other
hands could choose who the target takes it for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from shared.http.fields import checked_host
from shared.http.gate import BadRequest
from shared.http.headers import HOP_BY_HOP, OVERRIDES, Headers
from shared.http.location import rewrite_location

IDENTITY: Final = frozenset(
    {
        b"accountid",
        b"auth-user",
        b"client-cert",
        b"client-cert-chain",
        b"projectid",
        b"remote-email",
        b"remote-groups",
        b"remote-name",
        b"remote-user",
        b"ssl-client-cert",
        b"ssl-client-dn",
        b"ssl-client-s-dn",
        b"ssl-client-verify",
        b"thanos-tenant",
        b"x-amzn-oidc-data",
        b"x-amzn-oidc-identity",
        b"x-auth-request-access-token",
        b"x-auth-request-email",
        b"x-auth-request-groups",
        b"x-auth-request-preferred-username",
        b"x-auth-request-user",
        b"x-authenticated-user",
        b"x-authentik-username",
        b"x-client-cert",
        b"x-client-dn",
        b"x-client-verify",
        b"x-email",
        b"x-forwarded-access-token",
        b"x-forwarded-client-cert",
        b"x-forwarded-email",
        b"x-forwarded-groups",
        b"x-forwarded-preferred-username",
        b"x-forwarded-tls-client-cert",
        b"x-forwarded-tls-client-cert-info",
        b"x-forwarded-user",
        b"x-grafana-org-id",
        b"x-grafana-user",
        b"x-groups",
        b"x-remote-group",
        b"x-remote-groups",
        b"x-remote-user",
        b"x-scope-orgid",
        b"x-ssl-client-cert",
        b"x-ssl-client-dn",
        b"x-ssl-client-verify",
        b"x-token-subject",
        b"x-user",
        b"x-webauth-email",
        b"x-webauth-name",
        b"x-webauth-role",
        b"x-webauth-user",
    }
)
"""Who is asking, in the eyes of targets that trust the proxy in front of them; in lower case.

A sender must not choose them. A target's `headers.allow` lets single ones through, `headers.set` states them.
"""

IDENTITY_FAMILIES: Final = (
    b"cf-access-",
    b"tailscale-user-",
    b"x-goog-authenticated-user-",
    b"x-ms-client-principal",
    b"x-pomerium-",
)
"""Likewise, all headers that begin so: Cloudflare, Tailscale, Google's IAP, Azure and Pomerium say it in several."""

CREDENTIALS: Final = frozenset({b"authorization", b"cookie", b"x-api-key", b"x-auth-token"})
"""Headers that count as a credential of ours also when their value stands in the config itself."""

ALWAYS: Final = frozenset(
    {
        b"content-encoding",
        b"content-type",
        b"forwarded",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
"""What passes beside the names of `headers.only`: what says how to read the body, and what the relay adds."""

_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+*-]{1,64}", re.ASCII)
_NOT_OURS: Final = HOP_BY_HOP | OVERRIDES | {b"host"}
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,128}", re.ASCII)
_VALUE: Final = re.compile(r"[\t\x20-\x7e]{1,16384}", re.ASCII)


def is_identity(name: bytes) -> bool:
    """Whether a header with this name, in lower case, says who is asking."""
    return name in IDENTITY or name.startswith(IDENTITY_FAMILIES)


def check_header_name(name: str) -> str:
    """Give `name` back; ValueError if it is no header name that a config may speak of."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name[:64]!r} is not a header name: use letters, digits and '-'")
    folded = name.lower().encode("ascii")
    if folded in _NOT_OURS or folded.startswith(b"qanat-"):
        raise ValueError(f"{name} cannot be configured: it belongs to the connection or steers it")
    return name


def check_header_value(value: str) -> str:
    """Give `value` back without the whitespace around it; ValueError (not repeating it) if it cannot be sent."""
    value = value.strip(" \t\r\n")
    if _VALUE.fullmatch(value) is None:
        raise ValueError("a header's value is one line of 1 to 16384 characters of printable ASCII")
    return value


def check_content_type(text: str) -> str:
    """Give a media type back in lower case; ValueError if it is none."""
    if _TYPE.fullmatch(text.lower()) is None or "*" in text:
        raise ValueError(f"{text[:64]!r} is no media type; write it without parameters: application/x-protobuf")
    return text.lower()


class HeaderPolicy:
    """A target's header rules, compiled."""

    __slots__ = (
        "_allowed", "_dropped", "_fixed", "_host", "_keeps_host", "_only", "_set", "_types", "injects_credential",
    )  # fmt: skip

    def __init__(
        self,
        authority: str,
        *,
        keep_host: bool = False,
        fixed: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
        allow: Iterable[str] = (),
        only: Iterable[str] = (),
        content_types: Iterable[str] = (),
    ) -> None:
        """`only` names what may pass at all, `content_types` what bodies may be; empty ones restrict nothing.
        `authority` is what Host says where it is not kept, or the push has none.

        `fixed` are `headers.set`, `secrets` the contents of the files of `headers.set_from_files`.
        """
        names = {*(fixed or {}), *(secrets or {})}
        set_names = _folded(names)
        self._host = (b"Host", authority.encode("ascii"))
        self._keeps_host = keep_host
        self._set = dict(fixed or {})
        self._allowed = _folded(allow)
        self._dropped = frozenset({b"host"} | (IDENTITY - self._allowed) | _folded(remove) | set_names)
        self._only = _folded(only) | self._allowed | ALWAYS if only else frozenset()
        self._types = _folded(content_types)
        self._fixed: Headers = []
        self.injects_credential = bool(secrets) or not CREDENTIALS.isdisjoint(set_names)
        self._set_values(secrets or {})

    @property
    def revision(self) -> object:
        """Another object whenever `apply` may give another result for the same headers."""
        return self._fixed

    def passes(self, name: bytes) -> bool:
        """Whether a header with this name, in lower case, goes on to the target as it came."""
        if name in self._dropped or (self._only and name not in self._only):
            return False
        return name in self._allowed or not name.startswith(IDENTITY_FAMILIES)

    def refusal(self, headers: Headers) -> str | None:
        """The code of why a push with these headers may not pass; None if it may. No type at all is no wrong one."""
        if not self._types:
            return None
        types = [value for name, value in headers if name.lower() == b"content-type"]
        fits = all(value.partition(b";")[0].strip().lower() in self._types for value in types)
        return None if fits and len(types) < 2 else "content-type-not-allowed"

    def take_secrets(self, other: HeaderPolicy) -> bool:
        """Take the contents of the same files from a policy that has read them anew; whether they are others.

        The next push carries them.
        """
        has_changed = self._fixed != other._fixed
        self._fixed = other._fixed
        return has_changed

    def _set_values(self, secrets: Mapping[str, str]) -> None:
        values = self._set | dict(secrets)
        self._fixed = [(name.encode("ascii"), value.encode("ascii")) for name, value in values.items()]

    def apply(self, headers: Headers) -> Headers:
        """The header fields for the target, Host first, without any that frame the message."""
        passes = self.passes
        return [
            self._kept_host(headers) if self._keeps_host else self._host,
            *self._fixed,
            *[pair for pair in headers if passes(pair[0].lower())],
        ]

    def host_of(self, headers: Headers) -> bytes:
        """What Host says to the target for a push with these headers."""
        return (self._kept_host(headers) if self._keeps_host else self._host)[1]

    def _kept_host(self, headers: Headers) -> tuple[bytes, bytes]:
        hosts = [pair for pair in headers if pair[0].lower() == b"host"]
        # None or several is what no honest relay sends; a target would choose one of them by a rule of its own.
        if len(hosts) != 1:
            return self._host
        try:
            checked_host(hosts[0][1])
        except BadRequest:
            return self._host
        return hosts[0]

    def __repr__(self) -> str:
        names = ", ".join(name.decode("ascii") for name, _value in self._fixed)
        return f"<HeaderPolicy host={'kept' if self._keeps_host else 'replaced'} sets=[{names}]>"


def relocate(headers: Headers, target_url: bytes, host: bytes) -> Headers:
    """An answer's headers with a Location that leads back to the route, or without one that leads elsewhere inside.

    `host` is the Host that the target was told: it may take that for its own origin, whatever the scheme in front.
    """
    relocated: Headers = []
    for name, value in headers:
        if name.lower() == b"location":
            origins = (target_url, b"https://" + host, b"http://" + host)
            rewritten = next((found for one in origins if (found := rewrite_location(value, one)) is not None), None)
            if rewritten is None:
                continue
            value = rewritten
        relocated.append((name, value))
    return relocated


def _folded(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.lower().encode("ascii") for name in names)
