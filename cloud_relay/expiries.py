"""When certificates end: a list that status, metrics and warnings share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud_relay.client_cas import tenant_files
from shared.pki.issue import fingerprint
from shared.pki.tls import load_certificates

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig

WARN_BEFORE: Final = timedelta(days=30)
"""A certificate that somebody else has to renew is named this long before its end, or at a third of its time."""


class Expiry(NamedTuple):
    """A certificate in use and its end; `warning` says what to do if that is near, else it is empty.

    `lifetime` is zero, and `fingerprint` empty, where it is not known.
    """

    kind: str
    name: str
    not_after: datetime
    warning: str = ""
    lifetime: timedelta = timedelta()
    fingerprint: str = ""


def file_expiries(config: RelayConfig) -> tuple[Expiry, ...]:
    """The ends of the certificates that the config names. PkiError for a file that cannot be read."""
    return tuple(_file_expiries(config))


def describe_changes(old: Sequence[Expiry], new: Sequence[Expiry]) -> list[str]:
    """One line for each certificate in a file that a reload has put into use, and for each CA that it took out."""
    before = {(one.kind, one.fingerprint) for one in old}
    taken = {(one.kind, one.fingerprint): one for one in new}
    lines = [
        f"{one.kind} certificate {one.name}: a new one, valid until {one.not_after:%FT%TZ}"
        for key, one in taken.items() if key not in before
    ]  # fmt: skip
    gone = (one for one in old if one.kind == "client-ca" and (one.kind, one.fingerprint) not in taken)
    return lines + [f"client-ca certificate {one.name}: no longer trusted" for one in gone]


def near(expiry: Expiry, now: datetime) -> str:
    """What to say of a certificate that somebody else renews, when its end is near."""
    before = min(WARN_BEFORE, expiry.lifetime / 3) if expiry.lifetime else WARN_BEFORE
    if now < expiry.not_after - before:
        return ""
    return "renew it: the relay takes the new file by itself"


def _file_expiries(config: RelayConfig) -> Iterator[Expiry]:
    tls = config.tunnel.tls
    if tls is not None:
        yield _leaf("tunnel", tls.certificate)
        for path in (tls.client_ca, *tenant_files(config).values()):
            for one in load_certificates(path):
                name = one.subject.rfc4514_string()[:80]
                yield Expiry("client-ca", name, one.not_valid_after_utc, fingerprint=fingerprint(one))
    for ingress in config.ingress:
        for pair in ingress.tls or ():
            yield _leaf("ingress", pair.certificate)
    for tenant in config.tenants.values():
        for route in tenant.tcp_routes:
            if route.tls is not None:
                yield _leaf("tcp", route.tls.certificate)


def _leaf(kind: str, path: Path) -> Expiry:
    leaf = load_certificates(path, "certificate")[0]
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return Expiry(kind, str(path), leaf.not_valid_after_utc, lifetime=lifetime, fingerprint=fingerprint(leaf))
