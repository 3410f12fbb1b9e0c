"""Admission: one certificate a reason to refuse, and that nothing else makes an identity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from cloud_relay.admit import Identity, Refusal, admit, judge_again
from tests.support.tunnels import TestPolicy

NOW = datetime(2030, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())
SPIFFE = "spiffe://qanat.test/tenant/acme/location/walldorf/connector/c1"
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


def certificate(
    *uris: str,
    usages: tuple[x509.ObjectIdentifier, ...] | None = CLIENT,
    names: tuple[x509.GeneralName, ...] = (),
    since: datetime = NOW - DAY,
    until: datetime = NOW + DAY,
    is_ca: bool | None = None,
) -> bytes:
    """A certificate in DER; TLS has verified its chain, so that it signs itself here."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "c1")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 7, since, until)
    sans = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *names]
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def code(verdict: Identity | Refusal) -> str:
    return verdict.fault.code if isinstance(verdict, Refusal) else "admitted"


def test_a_good_certificate_is_an_identity():
    der = certificate(SPIFFE, is_ca=False)
    identity = admit([der], "/", NOW, TestPolicy())
    assert isinstance(identity, Identity)
    assert identity.key == ("acme", "walldorf", "c1")
    assert str(identity) == "acme/walldorf/c1"
    assert identity.not_after == NOW + DAY
    assert identity.fingerprint == x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()


def test_dns_names_and_other_usages_beside_it_do_no_harm():
    der = certificate(SPIFFE, usages=CLIENT + SERVER, names=(x509.DNSName("c1.test"),))
    assert code(admit([der], "/", NOW, TestPolicy())) == "admitted"


REFUSED = {
    "no certificate": (None, "certificate-required"),
    "expired": (certificate(SPIFFE, until=NOW - timedelta(seconds=1)), "certificate-expired"),
    "of tomorrow": (certificate(SPIFFE, since=NOW + timedelta(hours=1)), "certificate-not-yet-valid"),
    "for servers": (certificate(SPIFFE, usages=SERVER), "certificate-wrong-usage"),
    "for anything": (certificate(SPIFFE, usages=None), "certificate-wrong-usage"),
    "any usage": (
        certificate(SPIFFE, usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), "certificate-wrong-usage",
    ),
    "a CA": (certificate(SPIFFE, is_ca=True), "certificate-wrong-usage"),
    "no SAN": (certificate(), "certificate-wrong-identity"),
    "no URI": (certificate(names=(x509.DNSName("c1.test"),)), "certificate-wrong-identity"),
    "two ids": (certificate(SPIFFE, SPIFFE.replace("c1", "c2")), "certificate-wrong-identity"),
    "an id and another URI": (certificate(SPIFFE, "https://x.test"), "certificate-wrong-identity"),
    "a relay": (certificate("spiffe://qanat.test/relay/r1"), "certificate-wrong-identity"),
    "another trust domain": (certificate(SPIFFE.replace("qanat", "other")), "certificate-wrong-identity"),
    "upper case": (certificate(SPIFFE.replace("acme", "Acme")), "certificate-wrong-identity"),
    "a slash more": (certificate(SPIFFE + "/"), "certificate-wrong-identity"),
    "unknown location": (certificate(SPIFFE.replace("walldorf", "paris")), "unknown-location"),
    "unknown tenant": (certificate(SPIFFE.replace("acme", "other")), "unknown-location"),
    "not DER": (b"\x30\x03\x02\x01\x07", "certificate-wrong-identity"),
    "nothing": (b"", "certificate-wrong-identity"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    der, expected = REFUSED[name]
    chain = [der] if der is not None else []
    assert code(admit(chain, "/", NOW, TestPolicy())) == expected


@pytest.mark.parametrize("path", ["", "/x", "//", "/?", "*", "/ ", "http://relay/"])
def test_there_is_one_path(path):
    assert code(admit([certificate(SPIFFE)], path, NOW, TestPolicy())) == "wrong-path"


def test_revoked_comes_before_blocked_and_both_before_the_config():
    der = certificate(SPIFFE)
    policy = TestPolicy(locations=set(), blocked={("acme", "walldorf", "c1")})
    assert code(admit([der], "/", NOW, policy)) == "connector-blocked"
    policy.revoked.add(x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex())
    assert code(admit([der], "/", NOW, policy)) == "certificate-revoked"


def test_what_was_admitted_is_judged_again():
    identity = admit([certificate(SPIFFE)], "/", NOW, TestPolicy())
    assert isinstance(identity, Identity)
    assert judge_again(identity, NOW, TestPolicy()) == identity
    late = judge_again(identity, NOW + 2 * DAY, TestPolicy())
    gone = judge_again(identity, NOW, TestPolicy(locations=set()))
    assert isinstance(late, Refusal)
    assert isinstance(gone, Refusal)
    assert (late.fault.code, gone.fault.code) == ("certificate-expired", "unknown-location")


@given(st.binary(max_size=400), st.integers(0, 10_000), st.integers(0, 255))
@example(b"", certificate(SPIFFE).index(b"\xa0\x03\x02\x01\x02") + 4, 1)  # X.509 version 2, which is none
@example(b"", certificate(SPIFFE).index(b"\xa0\x03\x02\x01\x02") + 7, 0x87)  # a negative serial number
def test_no_bytes_get_in(data, position, value):
    """Neither random ones nor a good certificate with a byte changed: refused, or known to the config; no error."""
    assert isinstance(admit([data], "/", NOW, TestPolicy()), Refusal)
    good = bytearray(certificate(SPIFFE))
    good[position % len(good)] = value
    verdict = admit([bytes(good)], "/", NOW, TestPolicy())
    if isinstance(verdict, Identity):
        assert verdict.tenant == "acme"
        assert verdict.location == "walldorf"


@given(st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # a strategy's bounds
def test_only_within_its_dates(now):
    verdict = admit([certificate(SPIFFE)], "/", now, TestPolicy())
    assert isinstance(verdict, Identity) == (NOW - DAY <= now <= NOW + DAY)
