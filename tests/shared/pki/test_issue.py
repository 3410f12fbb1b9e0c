"""Certificates: what stands in them, and that OpenSSL, at its strictest, agrees."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.pki import issue
from shared.pki.spiffe import connector_id, relay_id

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CONNECTOR = connector_id("qanat.test", "acme", "walldorf", "c1")
RELAY = relay_id("qanat.test", "r1")
ROOT = issue.create_root(NOW)
ISSUING = issue.create_issuing(ROOT, "r1", NOW)


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def issue_connector(**changes):
    return issue.issue_connector(ISSUING, CONNECTOR, issue.new_key().public_key(), NOW, **changes)


def issue_relay(*names: str):
    return issue.issue_relay(ISSUING, RELAY, names, issue.new_key().public_key(), NOW)


def test_a_connector_has_exactly_its_spiffe_id():
    certificate = issue_connector()
    sans = extension(certificate, x509.SubjectAlternativeName).value
    assert list(sans) == [x509.UniformResourceIdentifier(str(CONNECTOR))]
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_relay_has_its_spiffe_id_and_its_names():
    certificate = issue_relay("Relay.Example.com", "127.0.0.1", "::1")
    sans = extension(certificate, x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.UniformResourceIdentifier) == [str(RELAY)]
    assert sans.get_values_for_type(x509.DNSName) == ["relay.example.com"]
    assert [str(address) for address in sans.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usages = extension(certificate, x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_lifetimes():
    leaf = issue_connector()
    for certificate, days in ((ROOT.certificate, 3650), (ISSUING.certificate, 365), (leaf, 7)):
        assert certificate.not_valid_before_utc == NOW - timedelta(minutes=10)
        assert certificate.not_valid_after_utc == NOW + timedelta(days=days)


def test_nothing_outlives_its_issuer():
    later = NOW + timedelta(days=360)
    leaf = issue.issue_connector(ISSUING, CONNECTOR, issue.new_key().public_key(), later)
    assert leaf.not_valid_after_utc == ISSUING.certificate.not_valid_after_utc


def test_what_a_ca_may_do():
    for certificate, path_length in ((ROOT.certificate, None), (ISSUING.certificate, 0)):
        constraints = extension(certificate, x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=path_length)
        usage = extension(certificate, x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert not usage.value.digital_signature


def test_what_a_leaf_may_do():
    for certificate in (issue_connector(), issue_relay("localhost")):
        assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
        usage = extension(certificate, x509.KeyUsage).value
        assert usage.digital_signature
        assert not usage.key_cert_sign


def test_keys_are_linked_by_their_identifiers():
    leaf = issue_connector()
    for certificate, issuer in ((leaf, ISSUING.certificate), (ISSUING.certificate, ROOT.certificate)):
        own = extension(issuer, x509.SubjectKeyIdentifier).value.digest
        assert extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_subjects_and_serial_numbers_are_unique():
    made = [issue_connector() for _ in range(3)]
    made += [issue.create_root(NOW).certificate for _ in range(3)]
    made += [issue.create_issuing(ROOT, "r1", NOW).certificate for _ in range(3)]
    assert len({certificate.subject for certificate in made}) == len(made)
    assert len({certificate.serial_number for certificate in made}) == len(made)


def test_the_longest_names_fit():
    longest = "a" * 63
    identity = connector_id(".".join([longest] * 3), longest, longest, longest)
    certificate = issue.issue_connector(ISSUING, identity, issue.new_key().public_key(), NOW)
    sans = extension(certificate, x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.UniformResourceIdentifier) == [str(identity)]


def test_keys_are_p256_and_can_be_read_back():
    key = issue.new_key()
    read = serialization.load_pem_private_key(issue.key_pem(key), password=None)
    assert isinstance(read, ec.EllipticCurvePrivateKey)
    assert isinstance(read.curve, ec.SECP256R1)
    assert read.public_key() == key.public_key()


def test_the_fingerprint_is_over_the_der_form():
    certificate = issue_connector()
    assert len(issue.fingerprint(certificate)) == 64
    again = x509.load_pem_x509_certificate(issue.certificate_pem(certificate))
    assert issue.fingerprint(again) == issue.fingerprint(certificate)


@pytest.mark.parametrize(
    "names", [(), ("",), ("a b",), ("localhost", "http://x"), ("x/y",), ("ä.example",), ("a" * 254,)]
)
def test_names_that_are_none(names):
    with pytest.raises(ValueError, match=r"DNS name"):
        issue_relay(*names)


@pytest.mark.parametrize(
    ("kind", "purpose"), [("connector", "sslclient"), ("relay", "sslserver"), ("relay", "sslclient")]
)
def test_openssl_agrees_at_its_strictest(tmp_path, peer, kind, purpose):
    openssl = peer("openssl")
    leaf = issue_connector() if kind == "connector" else issue_relay("localhost", "127.0.0.1")
    for name, certificates in {"root": [ROOT.certificate], "chain": ISSUING.chain, "leaf": [leaf]}.items():
        (tmp_path / name).write_bytes(issue.certificate_pem(*certificates))
    options = ["-x509_strict", "-check_ss_sig", "-policy_check", "-auth_level", "2", "-purpose", purpose]
    options += ["-attime", str(int(NOW.timestamp()))]
    if kind == "relay" and purpose == "sslserver":
        options += ["-verify_hostname", "localhost"]
    run = subprocess.run(
        [openssl.path, "verify", *options, "-CAfile", "root", "-untrusted", "chain", "leaf"],
        cwd=tmp_path,
        env=openssl.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (run.returncode, run.stdout) == (0, "leaf: OK\n"), run.stderr
