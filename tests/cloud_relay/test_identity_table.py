"""An operator's own CA: certificates without our SPIFFE id, and whose CA counts for whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_relay.admit import Refusal, admit
from cloud_relay.client_cas import load_cas
from cloud_relay.config import RelayConfig
from cloud_relay.policy import ConfigPolicy
from shared.config import load_config
from shared.pki import files, issue
from shared.pki.files import PkiError
from shared.pki.spiffe import connector_id

NOW = datetime.now(UTC)


def plain(root: issue.Authority, *names: str, uri: str = "", organization: str = "Corp") -> list[bytes]:
    """The chain, in DER, of a client certificate as a company's CA makes it."""
    subject = x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, "host"),
    ])  # fmt: skip
    sans: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    if uri:
        sans.append(x509.UniformResourceIdentifier(uri))
    builder = (
        x509.CertificateBuilder(root.certificate.subject, subject, issue.new_key().public_key(), 7, NOW,
                                NOW + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )  # fmt: skip
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    leaf = builder.sign(root.key, hashes.SHA256())
    return [one.public_bytes(serialization.Encoding.DER) for one in (leaf, root.certificate)]


def verdict(config: RelayConfig, chain: list[bytes], cas=None) -> str:
    judged = admit(chain, "/", NOW + timedelta(hours=1), ConfigPolicy(config, None, cas))
    return judged.fault.code if isinstance(judged, Refusal) else str(judged)


@pytest.fixture
def config(relay_document, write_config):
    def make(*entries, **tenants) -> RelayConfig:
        relay_document["tunnel"]["tls"]["identities"] = list(entries)
        for name, path in tenants.items():
            relay_document["tenants"][name]["connectors"] = {"client_ca": str(path)}
        return load_config(write_config(relay_document), RelayConfig)

    return make


def test_each_way_to_know_a_certificate(config):
    root = issue.create_root(NOW)
    chain = plain(root, "c1.corp.example")
    digits = x509.load_der_x509_certificate(chain[0]).fingerprint(hashes.SHA256()).hex().upper()
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    for entry in ({"fingerprint": colons}, {"dns": "C1.corp.example"}, {"subject": "CN=host,O=Corp,C=DE"}):
        assert verdict(config(entry | {"connector": "acme/walldorf/c1"}), chain) == "acme/walldorf/c1"
    for entry in ({"fingerprint": "0" * 64}, {"dns": "c2.corp.example"}, {"subject": "CN=host,O=Corp"}):
        assert verdict(config(entry | {"connector": "acme/walldorf/c1"}), chain) == "certificate-wrong-identity"


def test_what_two_entries_fit_is_refused(config):
    made = config(
        {"dns": "c1.corp.example", "connector": "acme/walldorf/c1"},
        {"subject": "CN=host,O=Corp,C=DE", "connector": "acme/walldorf/c1"},
        {"dns": "c2.corp.example", "connector": "acme/walldorf/c2"},
    )
    root = issue.create_root(NOW)
    assert verdict(made, plain(root, "c1.corp.example")) == "certificate-wrong-identity"
    assert verdict(made, plain(root, "c1.corp.example", "c2.corp.example", organization="X")) == (
        "certificate-wrong-identity"
    )
    assert verdict(made, plain(root, "c2.corp.example", organization="X")) == "acme/walldorf/c2"


def test_a_spiffe_id_of_ours_goes_before_the_table(config):
    made = config({"dns": "c1.corp.example", "connector": "acme/walldorf/c1"})
    root = issue.create_root(NOW)
    ours = str(connector_id("qanat.test", "acme", "newtown", "c9"))
    assert verdict(made, plain(root, "c1.corp.example", uri=ours)) == "acme/newtown/c9"
    broken = "spiffe://qanat.test/tenant/acme"
    assert verdict(made, plain(root, "c1.corp.example", uri=broken)) == "certificate-wrong-identity"
    foreign = "spiffe://corp.example/ns/agent"
    assert verdict(made, plain(root, "c1.corp.example", uri=foreign)) == "acme/walldorf/c1"


FLAWS = [
    ({"connector": "acme/walldorf/c1"}, "exactly one of fingerprint, dns and subject"),
    ({"dns": "a.example", "subject": "CN=x", "connector": "acme/walldorf/c1"}, "exactly one of"),
    ({"dns": "*.example", "connector": "acme/walldorf/c1"}, "not a host name"),
    ({"fingerprint": "ab", "connector": "acme/walldorf/c1"}, "not a SHA-256 fingerprint"),
    ({"subject": "nonsense", "connector": "acme/walldorf/c1"}, "not a distinguished name"),
    ({"dns": "a.example", "connector": "acme"}, "tenant/location/name"),
    ({"dns": "a.example", "connector": "initech/walldorf/c1"}, "there is no tenant 'initech'"),
    ({"dns": "a.example", "connector": "acme/paris/c1"}, "no location 'paris'"),
]


@pytest.mark.parametrize(("entry", "message"), FLAWS)
def test_entries_that_cannot_be(config, entry, message):
    with pytest.raises(Exception, match=message):
        config(entry)


def test_two_entries_for_one_certificate(config):
    twice = [{"dns": name, "connector": "acme/walldorf/c1"} for name in ("a.example", "A.example")]
    with pytest.raises(Exception, match="entry 0 is for the same certificates already"):
        config(*twice)


# --- tenants' own CAs


def bundle(path, *roots: issue.Authority):
    files.write_public(path, issue.certificate_pem(*(root.certificate for root in roots)))
    return path


def test_a_tenant_is_bound_to_its_own_ca(config, tmp_path):
    general, acme = issue.create_root(NOW), issue.create_root(NOW)
    made = config(acme=bundle(tmp_path / "acme.pem", acme))
    cas = load_cas({"": bundle(tmp_path / "general.pem", general), "acme": tmp_path / "acme.pem"})
    for tenant, root, expected in (
        ("acme", acme, "acme/walldorf/c1"),
        ("acme", general, "certificate-foreign"),
        ("globex", general, "globex/walldorf/c1"),
        ("globex", acme, "certificate-foreign"),  # another tenant's CA with our SPIFFE id in it
    ):
        identity = str(connector_id("qanat.test", tenant, "walldorf", "c1"))
        assert verdict(made, plain(root, uri=identity), cas) == expected


def test_the_table_opens_no_other_tenants_door(config, tmp_path):
    general, acme = issue.create_root(NOW), issue.create_root(NOW)
    made = config({"dns": "c1.example", "connector": "globex/walldorf/c1"}, acme=bundle(tmp_path / "acme.pem", acme))
    cas = load_cas({"": bundle(tmp_path / "general.pem", general), "acme": tmp_path / "acme.pem"})
    assert verdict(made, plain(acme, "c1.example"), cas) == "certificate-foreign"
    assert verdict(made, plain(general, "c1.example"), cas) == "globex/walldorf/c1"


def test_two_cas_of_one_name_are_an_error(tmp_path):
    root = issue.create_root(NOW)
    key = issue.new_key()
    twin = x509.CertificateBuilder(
        root.certificate.subject, root.certificate.subject, key.public_key(), 9, NOW, NOW + timedelta(days=1)
    ).sign(key, hashes.SHA256())
    paths = {"": bundle(tmp_path / "a.pem", root), "acme": bundle(tmp_path / "b.pem", issue.Authority(twin, key))}
    with pytest.raises(PkiError, match="bears the name of another CA"):
        load_cas(paths)


def test_an_empty_bundle_is_an_error(tmp_path):
    (tmp_path / "empty.pem").touch()
    with pytest.raises(PkiError, match="is empty"):
        load_cas({"": tmp_path / "empty.pem"})
