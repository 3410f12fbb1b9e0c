"""The relay's own certificate for its tunnel listener: signed by its own CA, renewed long before it ends.

<state_dir>/tls/relay.pem   key, certificate, issuing CA and cross certificates in one file, 0600
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from cloud_relay.identity.registrar import Registrar
from cloud_relay.identity.store import STATE_FILE
from shared.pki import issue
from shared.pki.files import PkiError, Stamp, stamp, write_private
from shared.pki.spiffe import relay_id
from shared.pki.tls import load_certificates, managed_server_context

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig

OWN_FILE: Final = Path("tls") / "relay.pem"


class OwnCertificate:
    """The file, and when it has to be made anew."""

    def __init__(self, state_dir: Path, registrar: Registrar) -> None:
        self.path = state_dir / OWN_FILE
        self._registrar = registrar
        self._chain: list[x509.Certificate] = []
        self._seen: Stamp = None

    def chain(self) -> list[x509.Certificate]:
        """What is in the file, own certificate first; nothing if there is none that can be read."""
        seen = stamp(self.path)
        if seen is None or seen != self._seen:
            try:
                self._chain = load_certificates(self.path, "certificate")
            except PkiError:
                self._chain = []
            self._seen = seen
        return list(self._chain)

    def is_due(self, names: Sequence[str], now: datetime) -> bool:
        """Whether it must be made anew: half of its time is over, or the names or the CA have changed."""
        chain = self.chain()
        if not chain or chain[1:] != self._registrar.book.served_chain(now):
            return True
        if now < chain[0].not_valid_before_utc:  # of a day when this host's clock was ahead
            return True
        issuing = chain[1] if len(chain) > 1 else chain[0]
        if half_time(chain[0]) <= now:  # one that ends with its CA is not made better by making it anew
            return chain[0].not_valid_after_utc < issuing.not_valid_after_utc
        return set(_names(chain[0])) != set(issue.server_names(names))

    def make(self, names: Sequence[str], now: datetime) -> x509.Certificate:
        """Make it anew, with a new key. IdentityFault if nothing can be signed, OSError if it cannot be written."""
        registrar, book = self._registrar, self._registrar.book
        key = issue.new_key()
        identity = relay_id(book.trust_domain, book.relay)
        leaf = issue.issue_relay(
            registrar.authority(), identity, names, key.public_key(), now, registrar.lifetimes.leaf
        )  # fmt: skip
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = registrar.keys.key_bytes(key) + issue.certificate_pem(leaf, *book.served_chain(now))
        write_private(self.path, pem)
        return leaf

    def context(self, now: datetime) -> ssl.SSLContext:
        """The tunnel listener's side of TLS, as the file and the book are now. Raises PkiError."""
        registrar = self._registrar
        return managed_server_context(self.path, registrar.book.trust(now).client_roots, registrar.keys.passphrase)


def checked_context(config: RelayConfig) -> ssl.SSLContext:
    """For `check`: whether the relay's own CA is there, without a look into its state, which a daemon may hold.

    Raises PkiError; the context is of no use.
    """
    if not (config.state_dir / STATE_FILE).exists():
        msg = f"{config.state_dir}: there is no CA here, and the config names no certificates: run 'cloud-relay init'"
        raise PkiError(msg)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def half_time(certificate: x509.Certificate) -> datetime:
    """When half of a certificate's time is over; what it was backdated by does not count."""
    start = certificate.not_valid_before_utc + issue.BACKDATED
    return start + max(certificate.not_valid_after_utc - start, timedelta()) / 2


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name for name in sans if isinstance(name, x509.DNSName | x509.IPAddress)]
