"""What the connector's identity is on disk. Whatever moment the process dies at, the files are whole.

    identity.pem      the key, then the certificate and the CAs below the root: 0600, one file, replaced in one rename
    roots.pem         the roots that relays are verified against
    relays.json       where the relays are, as the join token said
    join-<token>.key  the key that a token is being redeemed for
    renewal.key       the key that a renewal was asked with

A key is on disk before a certificate for it is asked for: the disk is known to have room, and an answer that came too
late is not lost. Reading raises PkiError, writing StoreError; then nothing has changed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connector_agent.identity.judge import identity_of
from shared.config import HostPort
from shared.pki.files import PkiError, read_private, write_private
from shared.pki.issue import PrivateKey, certificate_pem, key_pem, new_key
from shared.pki.spiffe import ConnectorId
from shared.pki.tls import load_certificates

IDENTITY: Final = "identity.pem"
ROOTS: Final = "roots.pem"
RELAYS: Final = "relays.json"
RENEWAL_KEY: Final = "renewal.key"

Write = Callable[[Path, bytes], None]


class StoreError(Exception):
    """A file could not be written, and what was there is there still."""


class Identity(NamedTuple):
    """Who this connector is. `chain` begins with its own certificate."""

    id: ConnectorId
    key: PrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        """The connector's own."""
        return self.chain[0]

    def __repr__(self) -> str:
        return f"<Identity {self.id} until {self.certificate.not_valid_after_utc:%FT%TZ}>"


class IdentityStore:
    """The files of one connector's identity in its state folder."""

    def __init__(self, folder: Path, write: Write = write_private) -> None:
        self.folder = folder
        self._write_file = write

    def __repr__(self) -> str:
        return f"<IdentityStore {self.folder}>"

    @property
    def identity_file(self) -> Path:
        """Key and chain in one PEM file."""
        return self.folder / IDENTITY

    @property
    def roots_file(self) -> Path:
        """The trusted roots."""
        return self.folder / ROOTS

    def load_identity(self) -> Identity | None:
        """None before the first join. PkiError when the file cannot be used, or others may read it."""
        path = self.identity_file
        if not path.exists():
            return None
        data = read_private(path, "identity")
        try:
            key = serialization.load_pem_private_key(data, password=None)
            chain = x509.load_pem_x509_certificates(data)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError("its key is not of the kind that this program makes")
            if key.public_key() != chain[0].public_key():
                raise ValueError("its key does not belong to its certificate")
            return Identity(identity_of(chain[0]), key, tuple(chain))
        except (ValueError, TypeError, x509.InvalidVersion) as error:
            msg = f"{path}: the identity cannot be used: {error}: move it away, and enrol this connector anew"
            raise PkiError(msg) from error

    def load_roots(self) -> list[x509.Certificate]:
        """At least one, or PkiError."""
        return load_certificates(self.roots_file, "list of trusted roots")

    def other_roots(self, roots: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        """Those of the list, if there is one, that are not among `roots`."""
        try:
            return [one for one in self.load_roots() if one not in roots]
        except PkiError:
            return []

    def load_relays(self) -> list[HostPort]:
        """What the join token named; empty where there is no such file, or it says nothing that can be used."""
        try:
            listed = json.loads((self.folder / RELAYS).read_bytes())
            return [HostPort(str(host), int(port)) for host, port in listed]
        except (OSError, ValueError, TypeError):
            return []

    def save_identity(self, key: PrivateKey, chain: Sequence[x509.Certificate]) -> Identity:
        """Replace key and certificate, both or neither."""
        identity = Identity(identity_of(chain[0]), key, tuple(chain))
        self._write(IDENTITY, key_pem(key) + certificate_pem(*chain))
        return identity

    def save_roots(self, roots: Sequence[x509.Certificate]) -> None:
        """Replace the list. An empty one is a ValueError: it would be trust in nobody, for ever."""
        if not roots:
            raise ValueError("an empty list of roots is never stored")
        self._write(ROOTS, certificate_pem(*roots))

    def save_relays(self, relays: Sequence[HostPort]) -> None:
        """Keep where the relays are."""
        self._write(RELAYS, json.dumps([[relay.host, relay.port] for relay in relays]).encode() + b"\n")

    def join_key(self, token: str) -> PrivateKey:
        """The key for this token: the one on disk, or a new one that is there before it is given out."""
        return self._pending(f"join-{token}.key")

    def renewal_key(self) -> PrivateKey:
        """Likewise, for the next renewal. One that cannot be used is worth nothing, and made anew."""
        try:
            return self._pending(RENEWAL_KEY)
        except PkiError:
            self._remove(self.folder / RENEWAL_KEY)
            return self._pending(RENEWAL_KEY)

    def forget_renewal_key(self) -> None:
        """The next renewal takes another key."""
        self._remove(self.folder / RENEWAL_KEY)

    def forget_join_keys(self) -> None:
        """An identity is there: no token of before counts any more."""
        for path in self.folder.glob("join-*.key"):
            self._remove(path)

    def _pending(self, name: str) -> PrivateKey:
        path = self.folder / name
        if path.exists():
            try:
                key = serialization.load_pem_private_key(read_private(path), password=None)
            except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                msg = f"{path}: the key cannot be used: {error}: remove the file"
                raise PkiError(msg) from error
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
            msg = f"{path}: the key is not of the kind that this program makes: remove the file"
            raise PkiError(msg)
        key = new_key()
        self._write(name, key_pem(key))
        return key

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_file(path, data)
        except OSError as error:
            remedy = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
            msg = f"{path} cannot be written: {error.strerror or error}; what was there is unchanged: {remedy}"
            raise StoreError(msg) from error

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            msg = f"{path} cannot be removed: {error.strerror or error}"
            raise StoreError(msg) from error
