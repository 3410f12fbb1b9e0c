"""Certificate signing requests: what is read, and what is not."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.pki import issue
from shared.pki.requests import MAX_REQUEST, key_id, make_request, read_request
from shared.pki.spiffe import connector_id

IDENTITY = connector_id("qanat.test", "acme", "walldorf", "c1")
KEY = issue.new_key()


def pem_of(key, *names: x509.GeneralName) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_both_ways():
    request = read_request(make_request(KEY, IDENTITY))
    assert request.identity == IDENTITY
    assert request.key_id == key_id(KEY.public_key())
    assert read_request(make_request(KEY)).identity is None


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_only_keys_of_our_kind(key):
    with pytest.raises(ValueError, match="P-256"):
        read_request(pem_of(key))


def test_a_signature_of_another_key():
    der = x509.load_pem_x509_csr(pem_of(KEY)).public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError, match="signature"):
        read_request(as_pem(der[:-1] + bytes([der[-1] ^ 1])))


def as_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def test_two_identities():
    uri = x509.UniformResourceIdentifier
    for names in ((uri(str(IDENTITY)), uri("spiffe://qanat.test/relay/r1")), (uri(str(IDENTITY)), x509.DNSName("x"))):
        with pytest.raises(ValueError, match="more than one"):
            read_request(pem_of(KEY, *names))


def test_size():
    with pytest.raises(ValueError, match="bytes"):
        read_request(b"x" * (MAX_REQUEST + 1))


@given(st.binary(max_size=200))
def test_anything_else_is_a_value_error(data):
    with pytest.raises(ValueError, match="not a certificate request"):
        read_request(data)
    with pytest.raises(ValueError, match="not a certificate request"):
        read_request(as_pem(data))


def test_a_version_that_there_is_not():
    der = bytearray(x509.load_pem_x509_csr(pem_of(KEY)).public_bytes(serialization.Encoding.DER))
    position = der.index(b"\x02\x01\x00")  # INTEGER 0: version 1
    der[position + 2] = 2
    with pytest.raises(ValueError, match="not a certificate request"):
        read_request(as_pem(bytes(der)))
