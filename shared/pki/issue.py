"""Keys and certificates: root CA, issuing CA, and the leaves of relays, connectors and ingresses.

P-256 and SHA-256 throughout; extensions as RFC 5280 asks and as Python 3.13 (VERIFY_X509_STRICT) checks: SKI, AKI,
critical basic constraints and key usage. Every subject is unique, so that OpenSSL never takes one CA for another that
bears the same name. Nothing here touches a file or reads a clock: `now` is an aware datetime.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.pki.spiffe import ConnectorId, RelayId

BACKDATED: Final = timedelta(minutes=10)
"""notBefore lies this far back, for peers whose clocks are slow."""

ROOT_LIFETIME: Final = timedelta(days=3650)
ISSUING_LIFETIME: Final = timedelta(days=365)
LEAF_LIFETIME: Final = timedelta(days=7)

_DNS_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*", re.ASCII)
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class Authority(NamedTuple):
    """A CA that can sign. `chain` is what its leaves send along: the CA certificates below the root."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()


def new_key() -> PrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def create_root(now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Authority:
    """A self-signed root CA."""
    key = new_key()
    name = _subject(f"Qanat root CA {secrets.token_hex(8)}")
    builder = _builder(name, name, key.public_key(), now, now + lifetime)
    return Authority(_as_ca(builder, path_length=None).sign(key, hashes.SHA256()), key)


def cross_sign(old: Authority, new_root: x509.Certificate, now: datetime) -> x509.Certificate:
    """The subject and key of `new_root`, vouched for by `old`: whoever trusts only the old root can follow to the new.

    A chain of them leads through several roll-overs, so roots bound no path length; issuing CAs do.
    """
    key = new_root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        msg = "only a root of our own making can be cross-signed"
        raise ValueError(msg)
    end = min(_end(old, now, ROOT_LIFETIME), new_root.not_valid_after_utc)
    builder = _builder(new_root.subject, old.certificate.subject, key, now, end)
    builder = builder.add_extension(_authority_key(old), critical=False)
    return _as_ca(builder, path_length=None).sign(old.key, hashes.SHA256())


def create_issuing(root: Authority, relay: str, now: datetime, lifetime: timedelta = ISSUING_LIFETIME) -> Authority:
    """The issuing CA of the relay called `relay`; it can sign leaves only, and does not outlive `root`."""
    key = new_key()
    subject = _subject(f"Qanat issuing CA {secrets.token_hex(8)}", unit=relay)
    builder = _builder(subject, root.certificate.subject, key.public_key(), now, _end(root, now, lifetime))
    builder = builder.add_extension(_authority_key(root), critical=False)
    certificate = _as_ca(builder, path_length=0).sign(root.key, hashes.SHA256())
    return Authority(certificate, key, (certificate, *root.chain))


def issue_relay(
    ca: Authority,
    identity: RelayId,
    names: Sequence[str],
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """The certificate of a relay's tunnel listener; `names` are the DNS names and IP addresses it is dialled by."""
    sans = [x509.UniformResourceIdentifier(str(identity)), *server_names(names)]
    return _leaf(ca, identity.relay, sans, (_SERVER, _CLIENT), public_key, now, lifetime)


def issue_connector(
    ca: Authority,
    identity: ConnectorId,
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """The certificate of a connector: its SPIFFE id is its only SAN, and it is a TLS client only."""
    sans = [x509.UniformResourceIdentifier(str(identity))]
    return _leaf(ca, identity.connector, sans, (_CLIENT,), public_key, now, lifetime)


def issue_server(
    ca: Authority,
    names: Sequence[str],
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """The certificate of a plain TLS server, such as a development ingress; `names` are DNS names and IP addresses."""
    return _leaf(ca, "server", server_names(names), (_SERVER,), public_key, now, lifetime)


def server_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """The SANs for DNS names (lower-cased; `*.` may lead) and IP addresses. None at all, or a wrong one: ValueError."""
    if not names:
        msg = "a server's certificate needs at least one DNS name or IP address"
        raise ValueError(msg)
    return [_server_name(name) for name in names]


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """The certificates as PEM, one after the other. A server sends its own first, then `Authority.chain`."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS #8 PEM: write it with `files.write_private`."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, in lower-case hex: how state and logs name a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _leaf(
    ca: Authority,
    common_name: str,
    sans: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    # The hex makes the subject unique per certificate; who it is stands in the SAN, never read from the subject.
    subject = _subject(common_name, serial=secrets.token_hex(16))
    builder = (
        _builder(subject, ca.certificate.subject, public_key, now, _end(ca, now, lifetime))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(sans), critical=False)
        .add_extension(_authority_key(ca), critical=False)
    )
    return builder.sign(ca.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _as_ca(builder: x509.CertificateBuilder, path_length: int | None) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(is_ca=True), critical=True
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(ca: Authority) -> x509.AuthorityKeyIdentifier:
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _end(ca: Authority, now: datetime, lifetime: timedelta) -> datetime:
    """Nothing outlives its issuer: its end would come as a surprise."""
    return min(now + lifetime, ca.certificate.not_valid_after_utc)


def _subject(common_name: str, *, unit: str = "", serial: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Qanat")]
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    if serial:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    return x509.Name(parts)


def _server_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    lowered = name.lower()
    if len(lowered) > 253 or _DNS_NAME.fullmatch(lowered) is None:
        msg = f"{name[:253]!r} is neither a DNS name nor an IP address"
        raise ValueError(msg)
    return x509.DNSName(lowered)
