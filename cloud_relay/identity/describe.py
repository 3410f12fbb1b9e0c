"""Identity as JSON-able objects: what commands print, and `status` shows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.identity.book import Book, newest
from cloud_relay.identity.events import Event
from cloud_relay.identity.records import CertificateRecord, ConnectorKey, Generation
from shared.clock import rfc3339

if TYPE_CHECKING:
    from cloud_relay.expiries import Expiry
    from cloud_relay.identity.desk import Desk

_NOT_SHOWN: Final = frozenset({"hash", "certificate"})
_TIMES: Final = frozenset({"expires", "not_before", "not_after", "backup_at"})


def certificate(record: CertificateRecord, book: Book, now: datetime) -> dict[str, Any]:
    """A connector's certificate."""
    return {
        "fingerprint": record.fingerprint,
        "connector": "/".join(record.connector),
        "standing": book.standing(record.fingerprint, record.connector, now).value,
        "serial": record.serial,
        "generation": record.generation,
        "not_before": rfc3339(record.not_before),
        "not_after": rfc3339(record.not_after),
        "via": record.via,
        "revoked": rfc3339(record.revoked_at),
        "reason": record.reason,
    }


def connector(desk: Desk, key: ConnectorKey) -> dict[str, Any]:
    """A connector: whether it is attached, how long it may come, and what it may announce."""
    book = desk.office.book
    record = book.connectors[key]
    good = newest(record, desk.now)
    standing = book.standing(good.fingerprint, key, desk.now).value if good else "no certificate"
    state = "blocked" if record.blocked_at else standing
    return {
        "connector": "/".join(key),
        "state": state,
        "tunnels": len(desk.attached(key)),
        "not_after": rfc3339(good.not_after) if good else None,
        "generation": good.generation if good else None,
        "targets": None if record.targets is None else sorted(record.targets),
        "blocked": rfc3339(record.blocked_at),
        "reason": record.reason,
    }


def expiry(one: Expiry) -> dict[str, Any]:
    """One of the relay's own certificates."""
    return {"kind": one.kind, "name": one.name, "not_after": rfc3339(one.not_after), "warning": one.warning}


def authority(desk: Desk) -> dict[str, Any]:
    """The CA: its generations, and how far a roll-over is."""
    book, now = desk.office.book, desk.now
    waits = book.waits_for(now)
    in_use = desk.office.roll_over.in_use(book.other) if book.other else 0
    return {
        "trust_domain": book.trust_domain,
        "relay": book.relay,
        "stage": book.stage.value,
        "since": rfc3339(book.stage_since),
        "generations": [_generation(desk, book.generations[one], now) for one in (book.active, book.other) if one],
        "waits_for": [
            {
                "connector": "/".join(one.key),
                "tunnels": len(desk.attached(one.key)),
                "until": rfc3339(max((c.not_after for c in one.certificates if c.revoked_at is None), default=None)),
            }
            for one in waits
        ],
        "tunnels_on_old": in_use,
    }


def event(one: Event) -> dict[str, Any]:
    """A line of the audit trail; certificates are left out, they are public but long."""
    data: dict[str, Any] = {
        name: rfc3339(one.seconds(name)) if name in _TIMES else value
        for name, value in one.data.items() if name not in _NOT_SHOWN
    }  # fmt: skip
    return {"number": one.number, "at": rfc3339(one.at), "kind": one.kind.value} | data


def _generation(desk: Desk, one: Generation, now: datetime) -> dict[str, Any]:
    issuing = one.issuing
    book = desk.office.book
    return {
        "generation": one.number,
        "is_active": one.number == book.active,
        "pin": one.pin,
        "root_not_after": rfc3339(one.root.not_valid_after_utc),
        "root_key_here": desk.office.registrar.keys.has_root(one),
        "issuing_not_after": rfc3339(issuing.not_valid_after_utc) if issuing else None,
        "connectors": sum(
            1 for living in book.living(now) if (good := newest(living, now)) and good.generation == one.number
        ),
    }  # fmt: skip
