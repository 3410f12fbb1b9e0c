"""JWTs of foreign issuers (RFC 7519, RFC 8725): signature, issuer, audience, time, claims; then whose sender it is.

401 is only for what is surely not valid. A token whose key we do not know is a question until the issuer has answered:
503, and the sender tries again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jwt

from cloud_relay.oauth.compact import Outside, read_outside
from cloud_relay.oauth.keyset import KeySource
from cloud_relay.senders import CANNOT_JUDGE, UNAUTHENTICATED, Finding, Grant, Sender
from shared.errors import Fault

LEEWAY: Final = 60.0
"""Seconds by which our clock and the issuer's may differ; a token counts that long after it has expired."""

REJUDGE: Final = 600.0
"""Seconds after which a good token is judged anew, so that a key that the issuer withdrew does not count for long."""

MAX_TRIED: Final = 8
"""Keys that are tried for a token that names none."""


class Claimant(NamedTuple):
    """A sender, and the claims by which its tokens are known: all of them, each with exactly this value, or holding it
    in a list, or as one of the words of `scope` (RFC 8693 §4.2)."""

    sender: Sender
    claims: Mapping[str, str]


class Issuer(NamedTuple):
    """One foreign issuer, as one tenant takes it."""

    issuer: str
    audiences: Sequence[str]
    algorithms: Sequence[str]
    required: Sequence[str]
    keys: KeySource
    claimants: Sequence[Claimant]


class ForeignTokens:
    """Judges the JWTs of one tenant's issuers."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._issuers: Final = {one.issuer: one for one in issuers}

    def judge(self, token: bytes) -> Finding | asyncio.Future[Finding] | None:
        """Whose token this is; None if it is no JWT of one of these issuers."""
        outside = read_outside(token)
        issuer = None if outside is None else self._issuers.get(outside.issuer)
        if outside is None or issuer is None:
            return None
        if outside.has_critical or outside.algorithm not in issuer.algorithms:
            return UNAUTHENTICATED
        keys = issuer.keys.find(outside.key_id, outside.algorithm)
        if keys:
            return _verify(token, keys, issuer)
        refreshed = issuer.keys.refresh()
        if isinstance(refreshed, bool):
            return UNAUTHENTICATED if refreshed else CANNOT_JUDGE
        return _verify_later(token, outside, issuer, refreshed)


def _verify_later(
    token: bytes, outside: Outside, issuer: Issuer, refreshed: asyncio.Future[bool]
) -> asyncio.Future[Finding]:
    finding: asyncio.Future[Finding] = asyncio.get_running_loop().create_future()

    def tell(done: asyncio.Future[bool]) -> None:
        if finding.done():
            return
        keys = issuer.keys.find(outside.key_id, outside.algorithm)
        if keys:
            finding.set_result(_verify(token, keys, issuer))
        else:
            finding.set_result(UNAUTHENTICATED if not done.cancelled() and done.result() else CANNOT_JUDGE)

    refreshed.add_done_callback(tell)
    return finding


def _verify(token: bytes, keys: Sequence[jwt.PyJWK], issuer: Issuer) -> Grant | Fault:
    for key in keys[:MAX_TRIED]:
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(issuer.algorithms),
                audience=list(issuer.audiences),
                issuer=issuer.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", *issuer.required]},
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return UNAUTHENTICATED
        return _ascribe(claims, issuer)
    return UNAUTHENTICATED


def _ascribe(claims: Mapping[str, Any], issuer: Issuer) -> Grant | Fault:
    """The one sender that all claims fit. What fits two is nobody's: who pushes must never depend on an order."""
    fitting = [one.sender for one in issuer.claimants if all(_holds(claims, *claim) for claim in one.claims.items())]
    if len(fitting) != 1:
        return UNAUTHENTICATED
    return Grant(fitting[0], min(float(claims["exp"]) + LEEWAY, time.time() + REJUDGE))


def _holds(claims: Mapping[str, Any], name: str, wanted: str) -> bool:
    value = claims.get(name)
    if isinstance(value, str):
        return value == wanted or (name == "scope" and wanted in value.split(" "))
    return isinstance(value, list) and wanted in value
