"""The CA's private keys, each in a file of its own, readable by the relay alone, encrypted where a passphrase is given.

    <state_dir>/ca/root-<pin>.key, issuing-<key id>.key

The names are the first 16 digits of the public key's SHA-256, so that no file is ever written over another. A root's
key may be taken away while nothing needs it: it signs issuing CAs (once or twice a year) and the next root.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_relay.identity.records import Generation
from shared.pki.files import PkiError, read_private, write_private
from shared.pki.issue import Authority, PrivateKey, PublicKey
from shared.pki.requests import key_id

CA_FOLDER: Final = "ca"


class KeyFolder:
    """The folder of keys. Raises PkiError for what cannot be read, OSError for what cannot be written."""

    def __init__(self, state_dir: Path, passphrase: bytes | None = None) -> None:
        self.folder = state_dir / CA_FOLDER
        self.passphrase = passphrase

    def root(self, generation: Generation) -> Authority:
        """The root, able to sign. PkiError if its key was taken away."""
        return Authority(generation.root, self._read(self.root_path(generation.root), generation.root))

    def has_root(self, generation: Generation) -> bool:
        """Whether the root's key is here."""
        return self.root_path(generation.root).exists()

    def issuing(self, generation: Generation) -> Authority:
        """The issuing CA, able to sign; its leaves send it along."""
        certificate = generation.issuing
        if certificate is None:
            msg = f"generation {generation.number} of the CA has no issuing CA"
            raise PkiError(msg)
        return Authority(certificate, self._read(self.issuing_path(certificate), certificate), (certificate,))

    def write_root(self, authority: Authority) -> Path:
        """Keep a new root's key."""
        return self._write(self.root_path(authority.certificate), authority.key)

    def write_issuing(self, authority: Authority) -> Path:
        """Keep a new issuing CA's key."""
        return self._write(self.issuing_path(authority.certificate), authority.key)

    def keep_only(self, generations: Iterable[Generation]) -> list[Path]:
        """Remove the keys of all other generations and of issuing CAs that were replaced; those that were there."""
        kept = list(generations)
        wanted = {self.root_path(one.root) for one in kept}
        wanted |= {self.issuing_path(one.issuing) for one in kept if one.issuing is not None}
        there = [path for kind in ("root", "issuing") for path in self.folder.glob(f"{kind}-*.key")]
        return [path for path in there if path not in wanted and _remove(path)]

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove keys that came to nothing."""
        for path in paths:
            _remove(path)

    def key_bytes(self, key: PrivateKey) -> bytes:
        """A key as PEM, encrypted where there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self.passphrase is not None:
            encryption = serialization.BestAvailableEncryption(self.passphrase)
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def root_path(self, certificate: x509.Certificate) -> Path:
        """Where a root's key is."""
        return self.folder / f"root-{key_id(_public_key(certificate))[:16]}.key"

    def issuing_path(self, certificate: x509.Certificate) -> Path:
        """Where an issuing CA's key is."""
        return self.folder / f"issuing-{key_id(_public_key(certificate))[:16]}.key"

    def _write(self, path: Path, key: PrivateKey) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, self.key_bytes(key))
        return path

    def _read(self, path: Path, certificate: x509.Certificate) -> PrivateKey:
        data = read_private(path, "CA key")
        try:
            key = serialization.load_pem_private_key(data, self.passphrase)
        except TypeError as error:  # encrypted and no passphrase, or the other way round
            msg = f"{path}: {_about_passphrase(self.passphrase)}"
            raise PkiError(msg) from error
        except ValueError as error:
            what = "the passphrase is wrong, or the file is damaged" if self.passphrase else "the file is damaged"
            msg = f"{path}: the CA key cannot be read: {what}"
            raise PkiError(msg) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            msg = f"{path}: the key does not belong to the CA's certificate; restore the right file from a backup"
            raise PkiError(msg)
        return key


def _about_passphrase(passphrase: bytes | None) -> str:
    if passphrase is None:
        return "the key is encrypted: name the file with its passphrase in identity.passphrase_file"
    return "the key is not encrypted, although identity.passphrase_file is given"


def _public_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        msg = "a CA certificate that is not of our making"
        raise PkiError(msg)
    return key


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
