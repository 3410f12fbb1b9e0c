"""Client certificates: whose they are, for which host, until when; with real handshakes in memory."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud_relay.certificates import (
    EXPIRED,
    WRONG_NAME,
    CertificateOwner,
    PeerCertificate,
    SenderCertificates,
    read_peer,
)
from cloud_relay.gates import Gate
from cloud_relay.metrics import SenderMetrics
from cloud_relay.senders import Sender
from shared.pki import issue, tls
from tests.support.development import Pki, handshake


def sender(name: str, tenant: str = "acme") -> Sender:
    return Sender(tenant, name, Gate(), SenderMetrics(tenant, name))


S4, IBP = sender("s4"), sender("ibp")
HOST = b"push.example.com"


class Tenant:
    """A tenant with a CA of its own."""

    def __init__(self, folder) -> None:
        folder.mkdir()
        self.pki = Pki(folder)
        self.authorities = tls.load_certificates(self.pki.ca)

    def known(self, *owners: tuple[Sender, str]) -> SenderCertificates:
        return SenderCertificates(self.authorities, [CertificateOwner(who, [pin]) for who, pin in owners])


@pytest.fixture
def acme(tmp_path):
    return Tenant(tmp_path / "acme")


@pytest.fixture
def globex(tmp_path):
    return Tenant(tmp_path / "globex")


def connect(server: Tenant, client: Tenant | None, *trusted: Tenant, host: str = "push.example.com", name: str = "c1"):
    """The relay's end of a connection, whose listener trusts the CAs of all these tenants."""
    pair = server.pki.server("push.example.com", "other.example.com")
    context = tls.ingress_server_context([pair], [one.pki.ca for one in trusted])
    files = () if client is None else client.pki.connector(name)
    return handshake(context, tls.target_client_context(server.pki.ca, *files), host)[0]


def pin_of(name: str = "c1") -> str:
    return f"uri:spiffe://qanat.test/tenant/acme/location/walldorf/connector/{name}"


def test_a_pinned_certificate_of_the_tenants_own_ca_is_the_sender(acme, globex):
    peer = read_peer(connect(acme, acme, acme, globex))
    assert peer is not None
    known = acme.known((S4, pin_of()), (IBP, pin_of("c2")))
    assert known.judge(peer, HOST, time.time()) is S4
    assert known.judge(peer, HOST + b":8443", time.time()) is S4


def test_the_same_name_by_another_tenants_ca_is_nobody(acme, globex):
    peer = read_peer(connect(acme, globex, acme, globex))
    assert peer is not None
    assert pin_of() in peer.pins, "it says that it is acme's"
    assert acme.known((S4, pin_of())).judge(peer, HOST, time.time()) is None
    assert globex.known((sender("x", "globex"), pin_of())).judge(peer, HOST, time.time()) is not None


def test_sni_must_be_the_host(acme):
    peer = read_peer(connect(acme, acme, acme, host="other.example.com"))
    assert peer is not None
    assert acme.known((S4, pin_of())).judge(peer, HOST, time.time()) is WRONG_NAME
    assert acme.known((S4, pin_of())).judge(peer, b"other.example.com", time.time()) is S4
    assert acme.known((S4, "dns:else")).judge(peer, HOST, time.time()) is None, "what is nobody's decides nothing"


def test_without_a_certificate_there_is_no_peer(acme):
    assert read_peer(connect(acme, None, acme)) is None
    assert read_peer(None) is None


def test_a_certificate_is_judged_by_the_clock_at_each_push(acme, monkeypatch):
    peer = read_peer(connect(acme, acme, acme))
    assert peer is not None
    known = acme.known((S4, pin_of()))
    assert known.judge(peer, HOST, time.time()) is S4
    monkeypatch.setattr(time, "time", lambda: peer.not_after)
    assert known.judge(peer, HOST, time.time()) is EXPIRED
    monkeypatch.setattr(time, "time", lambda: peer.not_before - 1)
    assert known.judge(peer, HOST, time.time()) is EXPIRED


def test_a_reload_looks_the_owner_up_anew(acme):
    peer = read_peer(connect(acme, acme, acme))
    assert peer is not None
    assert acme.known((S4, pin_of())).judge(peer, HOST, time.time()) is S4
    assert acme.known((IBP, pin_of())).judge(peer, HOST, time.time()) is IBP
    assert acme.known((S4, pin_of("c2"))).judge(peer, HOST, time.time()) is None
    assert SenderCertificates((), [CertificateOwner(S4, [pin_of()])]).judge(peer, HOST, time.time()) is None


def leaf(ca: Pki, subject: str, *names: x509.GeneralName) -> list[bytes]:
    """The chain of a certificate with this subject."""
    from cryptography.hazmat.primitives.serialization import Encoding

    now = dt.datetime.now(dt.UTC)
    key = issue.new_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(1))
        .not_valid_after(now + dt.timedelta(1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    from cryptography.hazmat.primitives import hashes

    made = builder.sign(key, hashes.SHA256())
    return [one.public_bytes(Encoding.DER) for one in (made, ca.root.certificate)]


def test_the_whole_subject_or_a_whole_name_is_pinned(acme):
    subject = "CN=push,O=SAP SE,C=DE"
    peer = PeerCertificate(leaf(acme.pki, subject, x509.DNSName("A.example.com")), "push.example.com")
    authorities = acme.authorities

    def owner(*pins: str | x509.Name) -> object:
        return SenderCertificates(authorities, [CertificateOwner(S4, pins)]).judge(peer, HOST, time.time())

    assert owner(x509.Name.from_rfc4514_string(subject)) is S4
    assert owner("dns:a.example.com") is S4
    for other in (
        "CN=push,O=SAP SE",
        "CN=push,O=SAP SE,C=DE,ST=x",
        "C=DE,O=SAP SE,CN=push",
        "CN=push",
        "CN=Push,O=SAP SE,C=DE",
    ):
        assert owner(x509.Name.from_rfc4514_string(other)) is None, other
    for other in ("dns:example.com", "uri:a.example.com", "a.example.com"):
        assert owner(other) is None
    both = SenderCertificates(
        authorities,
        [CertificateOwner(S4, ["dns:a.example.com"]), CertificateOwner(IBP, [x509.Name.from_rfc4514_string(subject)])],
    )
    assert both.judge(peer, HOST, time.time()) is None, "what fits two senders is nobody's"


def test_nothing_is_resumed_on_such_a_listener(acme):
    context = tls.ingress_server_context([acme.pki.server("push.example.com")], [acme.pki.ca])
    client = tls.target_client_context(acme.pki.ca, *acme.pki.connector())
    _, theirs = handshake(context, client, "push.example.com")
    assert theirs.version() == "TLSv1.3"
    session = theirs.session
    assert session is None or not session.has_ticket
    ours, again = handshake(context, client, "push.example.com", session)
    assert not again.session_reused
    assert read_peer(ours) is not None
