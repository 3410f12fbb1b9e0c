"""The TLS contexts of every edge, each made in one place, each closed when something is missing.

A missing file, an empty bundle, a key that others may read: PkiError, naming the path and the remedy, never an open
door. All of them speak HTTP/1.1 by ALPN and never write a key log.

Resumption: Python lets a resumed session in after its certificate was revoked or has expired. So a listener that asks
for client certificates gives out no tickets (OP_NO_TICKET for TLS 1.2, num_tickets for 1.3), and speaks TLS 1.3 only:
in 1.2 sessions are resumed by their id too, from a cache of OpenSSL that Python cannot switch off (tried).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shared.pki.files import PkiError, read_private, read_public

NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python does not name."""

_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and AEAD only (RFC 9325, section 4.2). TLS 1.3 has its own list, which needs no choice."""

_ALPN: Final = ["http/1.1"]


class KeyPair(NamedTuple):
    """A certificate's chain (own first, then the issuing CAs) and its key, both as PEM files."""

    certificate: Path
    key: Path


def tunnel_server_context(chain: Path, key: Path, *client_cas: Path) -> ssl.SSLContext:
    """The relay's tunnel listener: TLS 1.3, client certificates asked for and verified against all of `client_cas`.

    A client without a certificate gets in, and so does one whose certificate has expired: `admit()` judges both, since
    only a client that got in can be told why it is refused. A foreign CA ends in the handshake.
    """
    context = _server_context(KeyPair(chain, key), ssl.TLSVersion.TLSv1_3)
    if not client_cas:
        msg = "no CA bundle to trust: an empty list is never taken for 'anybody'"
        raise PkiError(msg)
    for client_ca in client_cas:
        _ask_for_client_certificates(context, client_ca)
    context.verify_flags |= NO_CHECK_TIME | ssl.VERIFY_X509_STRICT
    return context


def tunnel_client_context(server_ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """The connector's side of a tunnel: TLS 1.3, the relay's name and chain verified against `server_ca` alone.

    Without certificate and key it is the probe that asks why the certificate was refused. One alone is a PkiError.
    """
    context = _client_context(ssl.TLSVersion.TLSv1_3)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    _load_trust(context, server_ca)
    _load_optional_pair(context, certificate, key)
    return context


def managed_server_context(
    identity: Path, client_roots: Sequence[x509.Certificate], password: bytes | None = None
) -> ssl.SSLContext:
    """As `tunnel_server_context`, for a relay that is its own CA: `identity` is one PEM file with key and chain."""
    context = _server_context(KeyPair(identity, identity), ssl.TLSVersion.TLSv1_3, password)
    _trust(context, client_roots)
    _make_optional(context)
    context.verify_flags |= NO_CHECK_TIME | ssl.VERIFY_X509_STRICT
    return context


def managed_client_context(roots: Sequence[x509.Certificate], identity: Path | None = None) -> ssl.SSLContext:
    """As `tunnel_client_context`, for a connector that has joined: `identity` is one PEM file with key and chain.

    The dates of the relay's certificate are not looked at: the connector judges them by a clock that it can believe
    (`TrustedClock`), since its own wall clock may be wrong.
    """
    context = _client_context(ssl.TLSVersion.TLSv1_3)
    context.verify_flags |= NO_CHECK_TIME | ssl.VERIFY_X509_STRICT
    _trust(context, roots)
    if identity is not None:
        _load_pair(context, KeyPair(identity, identity))
    return context


def unverified_client_context() -> ssl.SSLContext:
    """For the first connection of a join, to whom nobody is known yet: nothing that comes from it may be believed but
    what a pin vouches for, and no secret may go to it."""
    context = _client_context(ssl.TLSVersion.TLSv1_3)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ingress_server_context(pairs: Sequence[KeyPair], client_cas: Sequence[Path] = ()) -> ssl.SSLContext:
    """A relay's listener for senders: TLS 1.2 and 1.3 (with `client_cas` 1.3 only), the certificate chosen by SNI.

    The first one whose DNS names fit is sent (a whole name before a wildcard), the first of all if none fits or the
    sender names no host. With `client_cas`, client certificates are asked for, not demanded (to the ingress they are
    one credential among others), and verified in full, expiry included, against all these bundles together: whose CA
    it was, the chain that was verified tells. The names of the CAs are told to nobody.
    """
    if not pairs:
        msg = "an ingress with TLS needs at least one certificate and key"
        raise PkiError(msg)
    minimum = ssl.TLSVersion.TLSv1_3 if client_cas else ssl.TLSVersion.TLSv1_2
    contexts = [_server_context(pair, minimum) for pair in pairs]
    for client_ca in client_cas:
        # All of them alike: the verify mode comes from the context of before SNI, whatever the later one says (tried).
        for context in contexts:
            _ask_for_client_certificates(context, client_ca)
    choose = _choose_by_name(pairs, contexts) if len(contexts) > 1 else None
    if client_cas:
        contexts[0].sni_callback = _note_name(choose)
    elif choose is not None:
        contexts[0].sni_callback = choose
    return contexts[0]


_NAMES: Final[WeakKeyDictionary[ssl.SSLObject, str]] = WeakKeyDictionary()
"""What clients named by SNI: a server's SSLObject does not tell it later on."""


def named_host(connection: ssl.SSLObject) -> str | None:
    """The host that a client named by SNI, in lower case, on a listener with `client_cas`; None if it named none."""
    return _NAMES.get(connection)


def tcp_server_context(pair: KeyPair, client_ca: Path | None = None, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A TCP route whose TLS ends at the relay; as `ingress_server_context`, but of what is spoken inside we know
    nothing: only the protocols in `alpn` are agreed to."""
    context = _server_context(pair, ssl.TLSVersion.TLSv1_2 if client_ca is None else ssl.TLSVersion.TLSv1_3)
    context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        _ask_for_client_certificates(context, client_ca)
    return context


def target_client_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """The connector's side towards a target: TLS 1.2 and 1.3, verified against `ca`, or else against the system's CAs.

    Company CAs seldom pass VERIFY_X509_STRICT, so it is left off on every version of Python. `ca` may name a CA or the
    very certificate that the target shows.
    """
    context = _client_context(ssl.TLSVersion.TLSv1_2)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        # A directory of hashed certificates is read only when needed, so an empty count says nothing yet.
        if not context.cert_store_stats()["x509"] and not _has_system_directory():
            msg = "this system has no CA certificates: install ca-certificates, or name the target's CA in tls.ca"
            raise PkiError(msg)
    else:
        _load_trust(context, ca)
    _load_optional_pair(context, certificate, key)
    return context


def load_certificates(path: Path, what: str = "CA bundle") -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one, or PkiError."""
    data = read_public(path, what)
    if not data.strip():
        msg = f"{path}: the {what} is empty: put at least one certificate in PEM form into it"
        raise PkiError(msg)
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        msg = f"{path}: the {what} holds no certificate in PEM form that can be read: {error}"
        raise PkiError(msg) from error


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names that a certificate is for, in lower case; none for one without SANs."""
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in sans.get_values_for_type(x509.DNSName)]


def _server_context(pair: KeyPair, minimum: ssl.TLSVersion, password: bytes | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols(_ALPN)
    _load_pair(context, pair, password)
    return context


def _client_context(minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which demands a certificate that fits the host name
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols(_ALPN)
    return context


def _ask_for_client_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    _load_trust(context, client_ca)
    _make_optional(context)


def _make_optional(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _load_trust(context: ssl.SSLContext, bundle: Path) -> None:
    load_certificates(bundle)  # the plainer message comes first
    try:
        context.load_verify_locations(cafile=str(bundle))
    except (OSError, ValueError) as error:
        msg = f"{bundle}: the CA bundle cannot be used: {error}"
        raise PkiError(msg) from error


def _trust(context: ssl.SSLContext, roots: Sequence[x509.Certificate]) -> None:
    if not roots:
        msg = "no CA certificate to trust: an empty list is never taken for 'anybody'"
        raise PkiError(msg)
    context.load_verify_locations(cadata=b"".join(one.public_bytes(serialization.Encoding.DER) for one in roots))


def _load_optional_pair(context: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    if certificate is not None and key is not None:
        _load_pair(context, KeyPair(certificate, key))
    elif certificate is not None or key is not None:
        msg = f"{certificate or key}: a certificate and its key are given together or not at all"
        raise PkiError(msg)


def _load_pair(context: ssl.SSLContext, pair: KeyPair, password: bytes | None = None) -> None:
    load_certificates(pair.certificate, "certificate")
    read_private(pair.key)
    try:
        given = password if password is not None else lambda: _refuse_password(pair.key)
        context.load_cert_chain(pair.certificate, pair.key, password=given)
    except PkiError:
        raise
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            msg = f"{pair.key}: the key does not belong to the certificate {pair.certificate}"
        else:
            msg = f"{pair.key}: the key, or the certificate {pair.certificate}, cannot be used: {error.reason or error}"
        raise PkiError(msg) from error
    except OSError as error:
        msg = f"{pair.key}: the key cannot be read: {error.strerror}"
        raise PkiError(msg) from error


def _refuse_password(key: Path) -> str:
    """Without this, OpenSSL would ask for a password on the terminal."""
    msg = f"{key}: the key is encrypted: store it without a password, readable by its owner only"
    raise PkiError(msg)


def _choose_by_name(
    pairs: Sequence[KeyPair], contexts: Sequence[ssl.SSLContext]
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    exact: dict[str, ssl.SSLContext] = {}
    wildcards: dict[str, ssl.SSLContext] = {}
    for pair, context in zip(pairs, contexts, strict=True):
        for name in dns_names(load_certificates(pair.certificate, "certificate")[0]):
            table, key = (wildcards, name[2:]) if name.startswith("*.") else (exact, name)
            table.setdefault(key, context)

    def choose(connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        if host is None:
            return
        host = host.lower()
        chosen = exact.get(host) or wildcards.get(host.partition(".")[2])
        if chosen is not None:
            connection.context = chosen

    return choose


def _note_name(
    choose: Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None] | None,
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def note(connection: ssl.SSLObject, host: str | None, context: ssl.SSLContext) -> None:
        if host is not None:
            _NAMES[connection] = host.lower()
        if choose is not None:
            choose(connection, host, context)

    return note


def _has_system_directory() -> bool:
    paths = ssl.get_default_verify_paths()  # None where there is no such directory, whatever the type stubs say
    return bool(paths.capath) and any(Path(paths.capath).iterdir())
