"""Access tokens of the relay's own (RFC 9068 in form): signed, and so judged without any list of what was given out.

A token names tenant, sender and credential. Each is looked up when the token is judged, so it counts only as long as
the sender still has the credential by which the token was got; whether the sender is switched off is asked on every
push. A token of ours whose key we do not know gets 503 rather than 401: if the state was lost, its sender will fetch a
new one in time, and a sender that is told 401 throws its data away meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import jwt

from cloud_relay.oauth.compact import read_outside
from cloud_relay.oauth.keys import LEEWAY, LONGEST_LIFETIME, SigningKeys
from cloud_relay.senders import CANNOT_JUDGE, UNAUTHENTICATED, Finding, Grant, Sender

ALGORITHM: Final = "EdDSA"
_TYPE: Final = "at+jwt"


class Client(NamedTuple):
    """Who may get tokens: a sender, by one of its secrets, which `credential` names without telling it."""

    sender: Sender
    credential: str


class AccessTokens:
    """Makes tokens, and reads them back. `trust_domain` tells our tokens from another relay's. Times are Unix."""

    def __init__(self, keys: SigningKeys, trust_domain: str, clock: Callable[[], float] = time.time) -> None:
        self.issuer = f"urn:qanat:relay:{trust_domain}"
        self._keys = keys
        self._clock = clock

    def issue(self, client: Client, lifetime: float) -> str:
        """A token for `lifetime` seconds."""
        now = int(self._clock())
        sender, key = client.sender, self._keys.current
        claims = {
            "iss": self.issuer,
            "aud": sender.tenant,
            "sub": sender.name,
            "client_id": client.credential,
            "iat": now,
            "exp": now + int(lifetime),
        }
        return jwt.encode(claims, key.private, ALGORITHM, {"kid": key.id, "typ": _TYPE})

    def judge(self, token: bytes, tenant: str, clients: Mapping[tuple[str, str], Sender]) -> Finding | None:
        """Whose token this is in `tenant`; None if it is none of ours. `clients` are those that count: by their
        sender's name and credential."""
        outside = read_outside(token)
        if outside is None or outside.issuer != self.issuer:
            return None
        if outside.has_critical or outside.algorithm != ALGORITHM or outside.key_id is None:
            return UNAUTHENTICATED
        key = self._keys.public(outside.key_id)
        if key is None:
            return CANNOT_JUDGE if self._may_have_been_ours(token) else UNAUTHENTICATED
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=tenant,
                issuer=self.issuer,
                options={"require": ["exp", "iat", "sub", "client_id"], "verify_exp": False, "verify_iat": False},
            )
            until = float(claims["exp"]) + LEEWAY
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            return UNAUTHENTICATED
        name, credential = claims["sub"], claims["client_id"]
        sender = clients.get((name, credential)) if isinstance(credential, str) else None
        if sender is None or self._clock() >= until:
            return UNAUTHENTICATED
        return Grant(sender, until)

    def _may_have_been_ours(self, token: bytes) -> bool:
        """Whether a token of an unknown key is one that a lost key of ours can have signed: not yet expired, and not
        longer-lived than ours are."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            expiry, made = float(claims["exp"]), float(claims["iat"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, KeyError):
            return False
        now = self._clock()
        return made <= now + LEEWAY and now < expiry + LEEWAY and expiry - made <= LONGEST_LIFETIME


class OwnTokens:
    """Judges our tokens for one tenant under one config."""

    def __init__(self, tokens: AccessTokens, tenant: str, clients: Mapping[tuple[str, str], Sender]) -> None:
        self._tokens = tokens
        self._tenant = tenant
        self._clients = clients

    def judge(self, token: bytes) -> Finding | None:
        """Whose token this is; None if it is none of ours."""
        return self._tokens.judge(token, self._tenant, self._clients)
