"""The certificates that a connector uses, each with its end, and what to say long before it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509

from shared.pki.issue import BACKDATED
from shared.pki.tls import load_certificates

WARN_BEFORE: Final = timedelta(days=30)
"""How long before its end a certificate that we do not renew is warned of."""


class InUse(NamedTuple):
    """One certificate. `kind` is identity, root, ca, target-certificate or target-ca; `name` says whose it is.

    `is_renewed`: by itself, so that it is odd only when little of its life is left.
    """

    kind: str
    name: str
    not_before: datetime
    not_after: datetime
    issuer: str
    is_renewed: bool = False

    @property
    def warn_from(self) -> datetime:
        """From when on its end is something to speak of."""
        if self.kind != "identity":
            return self.not_after - WARN_BEFORE
        # Of a connector's own a third is left: one that is renewed by itself has then been tried for since half.
        life = self.not_after - self.not_before
        return self.not_after - max(life - BACKDATED, timedelta(0)) / 3

    def warning(self, now: datetime) -> str | None:
        """A sentence, when it is time for one."""
        if now < self.warn_from:
            return None
        verb = "has expired" if now >= self.not_after else "expires"
        remedy = "why it is not renewed is in the log" if self.is_renewed else "put a new one in its place"
        return f"the {_KINDS[self.kind]} {self.name} {verb} at {self.not_after:%FT%TZ}: {remedy}"

    def describe(self) -> dict[str, Any]:
        """For `status` and `certs show`. JSON-able."""
        return {
            "kind": self.kind, "name": self.name, "not_before": f"{self.not_before:%FT%TZ}",
            "not_after": f"{self.not_after:%FT%TZ}", "issuer": self.issuer,
        }  # fmt: skip


_KINDS: Final = {
    "identity": "certificate of this connector,",
    "root": "root certificate",
    "ca": "CA certificate of",
    "target-certificate": "client certificate for the target",
    "target-ca": "CA certificate of the target",
}


def in_use(kind: str, name: str, certificate: x509.Certificate, *, is_renewed: bool = False) -> InUse:
    """What is told of a certificate."""
    return InUse(
        kind, name, certificate.not_valid_before_utc, certificate.not_valid_after_utc,
        certificate.issuer.rfc4514_string(), is_renewed,
    )  # fmt: skip


def of_bundle(kind: str, name: str, path: Path, now: datetime) -> InUse:
    """The one certificate that stands for a bundle: of those that are still valid the one that ends first.

    Bundles are full of old ones that nobody misses. Where all have expired: the last that did. Raises PkiError.
    """
    every = load_certificates(path)
    valid = [one for one in every if one.not_valid_after_utc > now]
    ends = sorted(valid or every, key=lambda one: one.not_valid_after_utc)
    return in_use(kind, name, ends[0] if valid else ends[-1])


def warnings(certificates: Iterable[InUse], now: datetime) -> list[str]:
    """What should be said now, in the order of the certificates."""
    return [text for text in (one.warning(now) for one in certificates) if text is not None]


def metric_values(certificates: Sequence[InUse]) -> dict[tuple[str, ...], float]:
    """Unix times of the ends, by kind and name."""
    return {(one.kind, one.name): one.not_after.timestamp() for one in certificates}


def ending_soon(certificates: Sequence[InUse], now: datetime) -> dict[tuple[str, ...], float]:
    """1.0 for those that there is a warning of, by kind and name."""
    return {(one.kind, one.name): float(one.warning(now) is not None) for one in certificates}
