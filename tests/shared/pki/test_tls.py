"""The TLS contexts, by handshakes in memory: who gets in, who does not, and what is refused before there is any."""

from __future__ import annotations

import ssl
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shared.pki import files, issue, tls
from shared.pki.files import PkiError
from shared.pki.tls import KeyPair
from tests.support.development import Pki, handshake


@pytest.fixture
def pki(tmp_path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def foreign(tmp_path) -> Pki:
    folder = tmp_path / "foreign"
    folder.mkdir()
    return Pki(folder)


def tunnel_server(pki: Pki) -> ssl.SSLContext:
    relay = pki.relay()
    return tls.tunnel_server_context(relay.certificate, relay.key, pki.ca)


def uris(connection: ssl.SSLObject) -> list[str]:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    sans = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return sans.value.get_values_for_type(x509.UniformResourceIdentifier)


# The tunnel


def test_a_connector_gets_in_and_is_known(pki):
    ours, theirs = handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pki.connector()))
    assert uris(ours) == ["spiffe://qanat.test/tenant/acme/location/walldorf/connector/c1"]
    assert (ours.version(), ours.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    assert uris(theirs) == ["spiffe://qanat.test/relay/r1"]


def test_by_address(pki):
    handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pki.connector()), "127.0.0.1")


def test_without_a_certificate_one_gets_in_to_be_told(pki):
    ours, _ = handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca))
    assert ours.getpeercert(binary_form=True) is None


def test_an_expired_certificate_gets_in_to_be_told(pki):
    pair = pki.connector(now=pki.now - timedelta(days=30))
    ours, _ = handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pair))
    assert len(uris(ours)) == 1


def test_a_foreign_certificate_does_not_get_in(pki, foreign):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *foreign.connector()))


def test_a_servers_certificate_does_not_get_in_as_a_clients(pki):
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pki.server("localhost")))


def test_a_connector_cannot_pass_for_a_relay(pki):
    pair = pki.connector()
    server = tls.tunnel_server_context(pair.certificate, pair.key, pki.ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, tls.tunnel_client_context(pki.ca))


def test_a_foreign_relay_is_not_trusted(pki, foreign):
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(tunnel_server(foreign), tls.tunnel_client_context(pki.ca, *pki.connector()))


def test_a_relay_of_another_name_is_not_trusted(pki):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pki.connector()), "relay.example.com")


def test_an_expired_relay_is_not_trusted(pki):
    key = issue.new_key()
    past = pki.now - timedelta(days=30)
    leaf = issue.issue_server(pki.issuing, ["localhost"], key.public_key(), past)
    pair = pki.write("expired", leaf, key)
    server = tls.tunnel_server_context(pair.certificate, pair.key, pki.ca)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(server, tls.tunnel_client_context(pki.ca, *pki.connector()))


def test_the_tunnel_speaks_only_tls_1_3(pki):
    client = tls.tunnel_client_context(pki.ca)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|VERSION"):
        handshake(tunnel_server(pki), client)


# Resumption


def test_where_certificates_are_asked_for_nothing_is_resumed(pki):
    server = tls.ingress_server_context([pki.server("localhost")], [pki.ca])
    client = tls.target_client_context(pki.ca, *pki.connector())
    still_open, first = handshake(server, client)
    assert not first.session or not first.session.has_ticket
    ours, _ = handshake(server, client, session=first.session)
    assert not ours.session_reused
    assert still_open.version() == ours.version() == "TLSv1.3"
    assert server.session_stats()["hits"] == 0


def test_where_certificates_are_asked_for_tls_1_2_is_not_spoken(pki):
    """It would resume by session id, in spite of OP_NO_TICKET."""
    client = tls.target_client_context(pki.ca, *pki.connector())
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|VERSION"):
        handshake(tls.ingress_server_context([pki.server("localhost")], [pki.ca]), client)


def test_the_tunnel_resumes_nothing(pki):
    server, client = tunnel_server(pki), tls.tunnel_client_context(pki.ca, *pki.connector())
    still_open, first = handshake(server, client)
    assert not first.session or not first.session.has_ticket
    ours, _ = handshake(server, client, session=first.session)
    assert not ours.session_reused
    assert still_open.version() == "TLSv1.3"


def test_an_ingress_without_client_certificates_resumes(pki):
    server, client = tls.ingress_server_context([pki.server("localhost")]), tls.target_client_context(pki.ca)
    _, first = handshake(server, client)
    ours, _ = handshake(server, client, session=first.session)
    assert ours.session_reused


# The ingress


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example.com", "a.example.com"),
        ("b.example.com", "b.example.com"),
        ("B.Example.COM", "b.example.com"),
        ("c.example.com", "*.example.com"),
        ("d.c.example.com", "a.example.com"),
        ("other.test", "a.example.com"),
        (None, "a.example.com"),
    ],
)
def test_the_certificate_is_chosen_by_name(pki, host, expected):
    pairs = [
        pki.server(name, file=f"s{i}") for i, name in enumerate(["a.example.com", "*.example.com", "b.example.com"])
    ]
    client = tls.target_client_context(pki.ca)
    client.check_hostname = False
    _, theirs = handshake(tls.ingress_server_context(pairs), client, host)
    certificate = theirs.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", expected),)
    assert theirs.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("host", ["a.example.com", "b.example.com", None])
def test_a_foreign_certificate_is_refused_whatever_the_name(pki, foreign, host):
    pairs = [pki.server("a.example.com", file="a"), pki.server("b.example.com", file="b")]
    client = tls.target_client_context(pki.ca, *foreign.connector())
    client.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.ingress_server_context(pairs, [pki.ca]), client, host)


def test_an_expired_sender_is_refused(pki):
    pair = pki.connector(now=pki.now - timedelta(days=30))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(
            tls.ingress_server_context([pki.server("localhost")], [pki.ca]), tls.target_client_context(pki.ca, *pair)
        )


def test_old_versions_and_ciphers_are_not_spoken(pki):
    server = tls.ingress_server_context([pki.server("localhost")])
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    ciphers = server.get_ciphers()
    assert ciphers
    assert all(cipher["aead"] for cipher in ciphers)
    client = tls.target_client_context(pki.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = handshake(server, client)
    assert ours.version() == "TLSv1.2"


# Targets


def test_a_target_may_be_pinned_by_its_own_certificate(pki):
    pair = pki.server("localhost")
    only_leaf = pki.folder / "pin.pem"
    files.write_public(only_leaf, issue.certificate_pem(tls.load_certificates(pair.certificate)[0]))
    handshake(tls.ingress_server_context([pair]), tls.target_client_context(only_leaf))


def test_a_target_of_another_name_or_ca_is_refused(pki, foreign):
    server = tls.ingress_server_context([pki.server("localhost")])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, tls.target_client_context(pki.ca), "other.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, tls.target_client_context(foreign.ca))


def test_without_a_ca_of_its_own_the_systems_are_trusted(pki):
    try:
        context = tls.target_client_context()
    except PkiError as error:
        assert "ca-certificates" in str(error)  # a system without any
        return
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.ingress_server_context([pki.server("localhost")]), context)


# What is refused before any handshake


def test_an_empty_or_missing_bundle_opens_no_door(pki, tmp_path):
    relay = pki.relay()
    empty = tmp_path / "empty.pem"
    empty.write_text("\n")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = {
        empty: "is empty",
        garbage: "no certificate in PEM",
        tmp_path / "none.pem": "is missing",
        relay.key: "no cert",
    }
    for path, message in cases.items():
        for make in (
            lambda path: tls.tunnel_server_context(relay.certificate, relay.key, path),
            tls.tunnel_client_context,
            lambda path: tls.ingress_server_context([relay], [path]),
            tls.target_client_context,
        ):
            with pytest.raises(PkiError, match=message) as caught:
                make(path)
            assert str(path) in str(caught.value)


def test_a_key_that_others_may_read(pki):
    relay = pki.relay()
    relay.key.chmod(0o644)
    with pytest.raises(PkiError, match=r"relay-r1\.key: others may read"):
        tls.tunnel_server_context(relay.certificate, relay.key, pki.ca)


def test_a_key_of_another_certificate(pki):
    with pytest.raises(
        PkiError, match=r"connector-c1\.key: the key does not belong to the certificate .*relay-r1\.pem"
    ):
        tls.tunnel_server_context(pki.relay().certificate, pki.connector().key, pki.ca)


def test_an_encrypted_key_asks_nobody(pki):
    relay = pki.relay()
    key = issue.new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    files.write_private(relay.key, key)
    with pytest.raises(PkiError, match="is encrypted"):
        tls.tunnel_server_context(relay.certificate, relay.key, pki.ca)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_that_is_none(pki, content):
    relay = pki.relay()
    files.write_private(relay.key, content)
    with pytest.raises(PkiError, match=r"relay-r1\.key: the key"):
        tls.tunnel_server_context(relay.certificate, relay.key, pki.ca)


def test_half_a_pair(pki):
    pair = pki.connector()
    with pytest.raises(PkiError, match="together"):
        tls.tunnel_client_context(pki.ca, pair.certificate)
    with pytest.raises(PkiError, match="together"):
        tls.target_client_context(pki.ca, None, pair.key)


def test_an_ingress_without_a_certificate():
    with pytest.raises(PkiError, match="at least one certificate"):
        tls.ingress_server_context([])


def test_a_missing_certificate(pki, tmp_path):
    with pytest.raises(PkiError, match=r"none\.pem: the certificate file is missing"):
        tls.ingress_server_context([KeyPair(tmp_path / "none.pem", pki.relay().key)])
