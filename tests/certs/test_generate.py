"""The development PKI: what it makes works together, is private, and short-lived."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

import pytest

from certs import generate
from shared.pki import tls
from tests.support.development import handshake


def test_what_it_makes_works_together(tmp_path, capsys):
    out = tmp_path / "dev"
    assert generate.main(["--out", str(out)]) == 0
    written = capsys.readouterr().out.split()
    assert len(written) == 7
    server = tls.tunnel_server_context(out / "relay.pem", out / "relay.key", out / "ca.pem")
    client = tls.tunnel_client_context(
        out / "ca.pem", out / "connector.demo.here.c1.pem", out / "connector.demo.here.c1.key"
    )
    for host in generate.DEFAULT_HOSTS:
        handshake(server, client, host)
    ingress = tls.ingress_server_context([tls.KeyPair(out / "ingress.pem", out / "ingress.key")])
    handshake(ingress, tls.target_client_context(out / "ca.pem"))


def test_keys_are_private_and_ignored_by_git(tmp_path):
    out = tmp_path / "dev"
    assert generate.main(["--out", str(out), "--keep-ca-keys"]) == 0
    keys = list(out.glob("*.key"))
    assert len(keys) == 5
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert "*" in (out / ".gitignore").read_text().splitlines()


def test_ca_keys_are_thrown_away(tmp_path):
    assert generate.main(["--out", str(tmp_path)]) == 0
    assert not (tmp_path / "ca.key").exists()
    assert not (tmp_path / "issuing.key").exists()


def test_everything_is_short_lived(tmp_path):
    assert generate.main(["--out", str(tmp_path), "--days", "2"]) == 0
    soon = datetime.now(UTC) + timedelta(days=2, minutes=1)
    certificates = [each for path in tmp_path.glob("*.pem") for each in tls.load_certificates(path)]
    assert len(certificates) == 7
    assert all(certificate.not_valid_after_utc < soon for certificate in certificates)


def test_connectors_whose_names_join_to_the_same_text(tmp_path):
    names = ["--connector", "a-b/c/d", "--connector", "a/b-c/d"]
    assert generate.main(["--out", str(tmp_path), *names]) == 0
    assert len(list(tmp_path.glob("connector.*.key"))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--connector", "demo/c1"],
        ["--connector", "Demo/here/c1"],
        ["--host", "http://localhost"],
        ["--days", "0"],
        ["--relay", "R 1"],
        ["--trust-domain", "-"],
    ],
)
def test_wrong_names_write_nothing(tmp_path, capsys, arguments):
    out = tmp_path / "dev"
    assert generate.main(["--out", str(out), *arguments]) == 1
    assert capsys.readouterr().err.startswith("certs: ")
    assert not out.exists()
