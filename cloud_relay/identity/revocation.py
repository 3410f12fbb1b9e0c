"""Ending what was issued: by certificate, connector, location or tenant; and barring a connector by name."""

from __future__ import annotations

from cloud_relay.identity.events import Event, Kind, Scope, new_event
from cloud_relay.identity.records import CertificateRecord, ConnectorKey
from cloud_relay.identity.registrar import Registrar

NOBODY: ConnectorKey = ("", "", "")


async def revoke(
    registrar: Registrar, scope: Scope, *, fingerprint: str = "", key: ConnectorKey = NOBODY, reason: str = ""
) -> list[CertificateRecord]:
    """End everything in this scope that was issued until now; the certificates that were good before.

    Parts of `key` beyond the scope are empty. A new join token lets a connector come back.
    """
    ended: list[CertificateRecord] = []
    tenant, location, connector = key

    def decide() -> tuple[list[Event], dict[str, bytes]]:
        now = registrar.clock.now()
        found = registrar.book.in_scope(scope, fingerprint, key)
        ended.extend(one for one in found if one.revoked_at is None and now <= one.not_after)
        return [new_event(
            Kind.REVOKED, now, scope=scope.value, fingerprint=fingerprint, tenant=tenant, location=location,
            connector=connector, reason=reason,
        )], {}  # fmt: skip

    await registrar.change(decide)
    return ended


async def block(registrar: Registrar, key: ConnectorKey, reason: str = "") -> bool:
    """Bar a connector, whatever it shows, until it is unblocked; False if it was barred already."""
    tenant, location, connector = key
    if registrar.book.is_blocked(key):
        return False
    now = registrar.clock.now()
    await registrar.commit([
        new_event(Kind.BLOCKED, now, tenant=tenant, location=location, connector=connector, reason=reason)
    ])  # fmt: skip
    return True


async def unblock(registrar: Registrar, key: ConnectorKey) -> bool:
    """Let a connector in again; False if it was not barred. What was revoked stays revoked."""
    tenant, location, connector = key
    if not registrar.book.is_blocked(key):
        return False
    now = registrar.clock.now()
    await registrar.commit([
        new_event(Kind.UNBLOCKED, now, tenant=tenant, location=location, connector=connector)
    ])  # fmt: skip
    return True
