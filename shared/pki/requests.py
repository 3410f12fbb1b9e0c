"""Certificate signing requests (RFC 2986): made by whoever holds the key, read by the CA as a stranger's word.

A request proves that its sender holds the key, and may say whom it is for. What it says is never taken: the CA issues
for the identity that the token or the certificate has proven, and refuses a request that names another.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.pki.issue import PrivateKey, PublicKey
from shared.pki.spiffe import ConnectorId, SpiffeId, parse_spiffe_id

MAX_REQUEST: Final = 4096
"""Bytes of a request in PEM form. Ours have about 500."""


_UNREADABLE: Final = (
    UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What the library raises on requests that are none, beside ValueError."""


class Request(NamedTuple):
    """A request whose signature is good. `identity` is what it asks for, None where it does not say.

    `key_id` is SHA-256 over the public key (SubjectPublicKeyInfo, DER) in hex: how state names a key.
    """

    public_key: PublicKey
    identity: SpiffeId | None
    key_id: str


def key_id(public_key: PublicKey) -> str:
    """SHA-256 over the SubjectPublicKeyInfo in lower-case hex."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def make_request(key: PrivateKey, identity: ConnectorId | None = None) -> bytes:
    """A request for this key, as PEM, naming the identity as its URI where one is given."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.connector if identity else "connector")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if identity is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> Request:
    """Read a request and check its signature. ValueError says what is wrong with it."""
    try:
        return _read(pem)
    except _UNREADABLE as error:
        msg = f"not a certificate request that can be used: {type(error).__name__}"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"not a certificate request that can be used: {str(error)[:200]}"
        raise ValueError(msg) from error


def _read(pem: bytes) -> Request:
    if len(pem) > MAX_REQUEST:
        msg = f"it has {len(pem)} bytes, more than {MAX_REQUEST}"
        raise ValueError(msg)
    request = x509.load_pem_x509_csr(pem)
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        msg = "its key is not a P-256 key"
        raise ValueError(msg)
    if not request.is_signature_valid:
        msg = "its signature does not fit its key"
        raise ValueError(msg)
    return Request(key, _identity(request), key_id(key))


def _identity(request: x509.CertificateSigningRequest) -> SpiffeId | None:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or len(list(names)) != 1:
        msg = "it names more than one identity"
        raise ValueError(msg)
    return parse_spiffe_id(uris[0])
