"""Join tokens: made, listed and revoked by the operator. The relay keeps only the hash of a token's secret."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.records import ConnectorKey, TokenRecord, TokenState
from cloud_relay.identity.registrar import Registrar
from shared.clock import rfc3339
from shared.config import HostPort
from shared.pki.join_token import JoinToken

DEFAULT_LIFETIME: Final = timedelta(hours=1)
MAX_LIFETIME: Final = timedelta(days=30)
MAX_OPEN: Final = 10_000
"""Open tokens. Each holds a place in memory."""

_ID_BYTES: Final = 5


async def create_token(
    registrar: Registrar,
    key: ConnectorKey,
    relays: Sequence[HostPort],
    *,
    lifetime: timedelta = DEFAULT_LIFETIME,
    targets: Sequence[str] | None = None,
    by: str = "",
) -> tuple[JoinToken, TokenRecord]:
    """A token for this connector, good once. Raises IdentityFault, StateError."""
    book = registrar.book
    if not registrar.knows(key[0], key[1]):
        raise IdentityFault("unknown-location", f"the config has no location {key[1]!r} of a tenant {key[0]!r}")
    if book.is_blocked(key):
        raise IdentityFault("connector-blocked", f"{'/'.join(key)} is blocked")
    token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(32)
    tenant, location, connector = key

    def decide() -> tuple[list[Event], dict[str, bytes]]:
        now, pin = registrar.now(), book.generation.pin
        if sum(one.state(now) is TokenState.OPEN for one in book.tokens.values()) >= MAX_OPEN:
            raise IdentityFault("overloaded", f"there are {MAX_OPEN} open join tokens; revoke those of no use")
        return [new_event(
            Kind.TOKEN_CREATED, now, token=token_id, hash=hashlib.sha256(secret.encode()).hexdigest(), tenant=tenant,
            location=location, connector=connector, expires=(now + lifetime).timestamp(), pin=pin, by=by,
            targets=None if targets is None else sorted(targets),
        )], {}  # fmt: skip

    await registrar.change(decide, is_urgent=True)
    pin = book.tokens[token_id].pin
    token = JoinToken(book.trust_domain, tuple(relays), pin, tenant, location, connector, token_id, secret)
    return token, book.tokens[token_id]


async def revoke_token(registrar: Registrar, token_id: str, by: str = "") -> TokenRecord:
    """End an open token. LookupError for one that is not known; one that is used or over stays as it is."""
    token = registrar.book.tokens[token_id]

    def decide() -> tuple[list[Event], dict[str, bytes]]:
        if token.state(registrar.clock.now()) is not TokenState.OPEN:
            return [], {}
        return [new_event(Kind.TOKEN_REVOKED, registrar.note_time(), token=token_id, by=by)], {}

    await registrar.change(decide, is_urgent=True)
    return token


def describe_token(token: TokenRecord, now: datetime) -> dict[str, Any]:
    """A token as `tokens list` shows it, JSON-able."""
    return {
        "token": token.token,
        "connector": "/".join(token.connector),
        "state": token.state(now).value,
        "created": rfc3339(token.created_at),
        "expires": rfc3339(token.expires),
        "targets": None if token.targets is None else sorted(token.targets),
        "used": rfc3339(token.used_at),
        "revoked": rfc3339(token.revoked_at),
        "misuses": token.misuses,
    }
