"""The tunnel's port, by a plain OpenSSL client: saved sessions, and certificates of our CA that are no connector's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_relay.identity.events import Scope
from cloud_relay.identity.revocation import revoke
from shared.pki import issue
from shared.pki.spiffe import connector_id, relay_id
from shared.pki.tls import managed_client_context
from shared.tunnel.websocket_client import HandshakeError
from tests.cloud_relay.identity.door_kit import Door, Pass, door
from tests.cloud_relay.identity.kit import KEY

pytestmark = pytest.mark.system
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: qanat.v1\r\n\r\n"
)


class Visit(NamedTuple):
    """What a client saw: the relay's whole answer, and the session that it would use again."""

    answer: bytes
    session: ssl.SSLSession | None
    was_resumed: bool

    @property
    def code(self) -> str:
        """Of the refusal; "" where it was let in."""
        for line in self.answer.split(b"\r\n"):
            if line.lower().startswith(b"qanat-error:"):
                return line.partition(b":")[2].strip().decode()
        assert self.answer.startswith(b"HTTP/1.1 101 ")
        return ""


def _visit(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Visit:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(UPGRADE)
        answer = b""
        while b"\r\n\r\n" not in answer:
            got = tls.recv(4096)
            assert got, answer
            answer += got
        return Visit(answer, tls.session, bool(tls.session_reused))


class Client:
    """One connector's context, which keeps what it would resume."""

    def __init__(self, d: Door, who: Pass) -> None:
        self._port = d.port
        self._context = managed_client_context(d.office.book.trust(d.office.now).client_roots, who.file)
        self._session: ssl.SSLSession | None = None

    async def visit(self) -> Visit:
        """With the session of before, if there is one."""
        visit = await asyncio.to_thread(_visit, self._port, self._context, self._session)
        self._session = visit.session
        assert not visit.was_resumed
        assert visit.session is None or not visit.session.has_ticket
        return visit


async def test_a_saved_session_does_not_get_in_after_revocation(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join()
        client = Client(d, who)
        assert (await client.visit()).code == ""
        assert (await client.visit()).code == ""
        await revoke(d.office.registrar, Scope.CERTIFICATE, fingerprint=who.fingerprint)
        assert (await client.visit()).code == "certificate-revoked"


async def test_a_saved_session_does_not_get_in_after_its_end(tmp_path):
    """Past the grace it is told so; within it only a session that renews is to be had (see test_sessions)."""
    async with door(tmp_path) as d:
        client = Client(d, await d.join())
        assert (await client.visit()).code == ""
        d.office.times.pass_by(timedelta(days=7 + 30, minutes=1))
        assert (await client.visit()).code == "certificate-expired"


def _leaf(authority: issue.Authority, d: Door, uris: list[str], *usages: x509.ObjectIdentifier) -> Pass:
    """A certificate that this very CA has made, past everything that we would do."""
    key, now = issue.new_key(), d.office.now
    builder = (
        x509.CertificateBuilder(
            authority.certificate.subject, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "c1")]), key.public_key(),
            x509.random_serial_number(), now, now + timedelta(days=1),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris] or [x509.DNSName("c1")]),
            critical=False,
        )
    )  # fmt: skip
    leaf = builder.sign(authority.key, hashes.SHA256())
    return d.write(issue.certificate_pem(leaf, *authority.chain), issue.fingerprint(leaf), key)


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ID = str(connector_id("qanat.test", *KEY))
NO_CONNECTORS: dict[str, tuple[list[str], x509.ObjectIdentifier, str]] = {
    "without an id": ([], CLIENT, "certificate-wrong-identity"),
    "with two ids": ([ID, ID.replace("c1", "c2")], CLIENT, "certificate-wrong-identity"),
    "of a relay": ([str(relay_id("qanat.test", "r1"))], CLIENT, "certificate-wrong-identity"),
    "of another trust domain": ([ID.replace("qanat.test", "else.test")], CLIENT, "certificate-wrong-identity"),
    "for servers": ([ID], SERVER, "certificate-wrong-usage"),
    "for code": ([ID], ExtendedKeyUsageOID.CODE_SIGNING, "certificate-wrong-usage"),
    "with all that is needed, but not in the book": ([ID], CLIENT, "certificate-unknown"),
}


@pytest.mark.parametrize("what", NO_CONNECTORS)
async def test_a_certificate_of_our_ca_that_is_no_connectors(tmp_path: Path, what: str) -> None:
    uris, usage, code = NO_CONNECTORS[what]
    async with door(tmp_path) as d:
        who = _leaf(d.office.registrar.authority(), d, uris, usage)
        if code == "certificate-wrong-usage":  # OpenSSL ends the handshake; the relay says in its log and counts why
            with pytest.raises(HandshakeError):
                await d.dial(who)
        else:
            assert await d.refusal(who) == code
        await d.until(lambda: bool(d.listener.counts.refused))
        assert d.listener.counts.refused == {code: 1}
        assert len(d.registry) == 0
