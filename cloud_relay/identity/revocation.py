"""Ending what was issued: by certificate, connector, location or tenant; and barring a connector by name."""

from __future__ import annotations

from cloud_relay.identity.events import Event, Kind, Scope, new_event
from cloud_relay.identity.records import CertificateRecord, ConnectorKey
from cloud_relay.identity.registrar import Registrar

NOBODY: ConnectorKey = ("", "", "")


async def revoke(
    registrar: Registrar,
    scope: Scope,
    *,
    fingerprint: str = "",
    key: ConnectorKey = NOBODY,
    reason: str = "",
    by: str = "",
) -> list[CertificateRecord]:
    """End everything in this scope that was issued until now; the certificates that were good before.

    Parts of `key` beyond the scope are empty. A new join token lets a connector come back.
    """
    ended: list[CertificateRecord] = []
    tenant, location, connector = key

    def decide() -> tuple[list[Event], dict[str, bytes]]:
        now = registrar.note_time()
        found = registrar.book.in_scope(scope, fingerprint, key)
        ended[:] = (one for one in found if one.revoked_at is None and now <= one.not_after)
        return [new_event(
            Kind.REVOKED, now, scope=scope.value, fingerprint=fingerprint, tenant=tenant, location=location,
            connector=connector, reason=reason, by=by,
        )], {}  # fmt: skip

    await registrar.change(decide, is_urgent=True)
    return ended


async def block(registrar: Registrar, key: ConnectorKey, reason: str = "", by: str = "") -> bool:
    """Bar a connector, whatever it shows, until it is unblocked; False if it was barred already."""
    return await _bar(registrar, key, Kind.BLOCKED, reason, by)


async def unblock(registrar: Registrar, key: ConnectorKey, by: str = "") -> bool:
    """Let a connector in again; False if it was not barred. What was revoked stays revoked."""
    return await _bar(registrar, key, Kind.UNBLOCKED, "", by)


async def _bar(registrar: Registrar, key: ConnectorKey, kind: Kind, reason: str, by: str) -> bool:
    tenant, location, connector = key
    changed: list[bool] = []

    def decide() -> tuple[list[Event], dict[str, bytes]]:
        changed.clear()
        if registrar.book.is_blocked(key) == (kind is Kind.BLOCKED):
            return [], {}
        changed.append(True)
        now = registrar.note_time()
        return [
            new_event(kind, now, tenant=tenant, location=location, connector=connector, reason=reason, by=by)
        ], {}  # fmt: skip

    await registrar.change(decide, is_urgent=True)
    return bool(changed)
