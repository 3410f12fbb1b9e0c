"""The CA's private keys, each in a file of its own, readable by the relay alone, encrypted where a passphrase is given.

    <state_dir>/ca/root-1.key, issuing-1-3f2a91c0.key, root-2.key, …

A root's key may be taken away while nothing needs it: it signs issuing CAs (once or twice a year) and the next root.
"""

from __future__ import annotations

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
        return Authority(generation.root, self._read(self._root_path(generation.number), generation.root))

    def has_root(self, generation: Generation) -> bool:
        """Whether the root's key is here."""
        return self._root_path(generation.number).exists()

    def issuing(self, generation: Generation) -> Authority:
        """The issuing CA, able to sign; its leaves send it along."""
        certificate = generation.issuing
        if certificate is None:
            msg = f"generation {generation.number} of the CA has no issuing CA"
            raise PkiError(msg)
        return Authority(certificate, self._read(self._issuing_path(generation.number, certificate), certificate),
                         (certificate,))  # fmt: skip

    def write_root(self, number: int, authority: Authority) -> None:
        """Keep a new root's key."""
        self._write(self._root_path(number), authority.key)

    def write_issuing(self, number: int, authority: Authority) -> None:
        """Keep a new issuing CA's key."""
        self._write(self._issuing_path(number, authority.certificate), authority.key)

    def destroy(self, number: int) -> list[Path]:
        """Remove all keys of a generation that has been retired; those that were there."""
        gone = [self._root_path(number), *self.folder.glob(f"issuing-{number}-*.key")]
        return [path for path in gone if _remove(path)]

    def key_bytes(self, key: PrivateKey) -> bytes:
        """A key as PEM, encrypted where there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self.passphrase is not None:
            encryption = serialization.BestAvailableEncryption(self.passphrase)
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def _root_path(self, number: int) -> Path:
        return self.folder / f"root-{number}.key"

    def _issuing_path(self, number: int, certificate: x509.Certificate) -> Path:
        return self.folder / f"issuing-{number}-{key_id(_public_key(certificate))[:8]}.key"

    def _write(self, path: Path, key: PrivateKey) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, self.key_bytes(key))

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
