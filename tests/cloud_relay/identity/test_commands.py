"""The commands about identity, on the state of a relay that does not run."""

from __future__ import annotations

import json
import os

import pytest

from cloud_relay import cli_identity
from cloud_relay.cli_call import user_name
from shared.pki.join_token import parse_join_token
from tests.cloud_relay.identity.shell import INIT, Shell
from tests.support.development import Pki


def test_a_relay_without_a_ca_does_not_start(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", str(tmp_path / "state"))
    (tmp_path / "state" / "state.db").unlink()
    assert "cloud-relay init" in shell.problem(3, "check")["title"]
    assert shell.problem(3, "tokens", "list")["code"] == "not-initialised"


def test_the_trust_domain_is_fixed(shell):
    shell.config.write_text(shell.config.read_text().replace('"localhost"', '"other.test"'))
    problem = shell.problem(3, "tokens", "list")
    assert problem["code"] == "trust-domain-changed"
    assert "localhost" in problem["remedy"]


def test_keys_under_a_passphrase(tmp_path, capsys):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    secret.chmod(0o600)
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", str(tmp_path / "state"), "--passphrase-file", str(secret))
    for key in (tmp_path / "state" / "ca").iterdir():
        assert b"ENCRYPTED" in key.read_bytes()
    assert shell.json("certs", "rotate")["not_after"]
    secret.write_text("another one\n")
    problem = shell.problem(5, "certs", "rotate")
    assert problem["code"] == "cannot-issue"
    assert "passphrase is wrong" in problem["title"]
    secret.chmod(0o644)
    assert "chmod 600" in shell.problem(3, "tokens", "list")["title"]


def test_tokens(shell):
    code, out, err = shell.run("tokens", "create", "acme/walldorf/c1", "--lifetime", "2h", "--targets", "metrics,logs")
    assert code == 0
    token = parse_join_token(out)
    assert token.identity.connector == "c1"
    assert token.secret not in err
    (row,) = shell.json("tokens", "list")["tokens"]
    assert (row["state"], row["targets"]) == ("open", ["logs", "metrics"])
    assert token.secret not in json.dumps(row)
    assert shell.json("tokens", "revoke", token.token)["state"] == "revoked"
    assert shell.problem(4, "tokens", "revoke", "nothing")["code"] == "no-such-token"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("tokens", "create", "acme/nowhere/c1"), 4, "unknown-location"),
        (("tokens", "create", "acne/walldorf/c1"), 4, "unknown-location"),
        (("tokens", "create", "c1"), 2, "bad-name"),
        (("tokens", "create", "acme/walldorf/c1", "--lifetime", "90d"), 2, "bad-lifetime"),
        (("tokens", "create", "acme/walldorf/c1", "--targets", "No Name"), 2, "bad-name"),
        (("connectors", "show", "acme/walldorf/c1"), 4, "no-such-connector"),
        (("connectors", "unblock", "acme/walldorf/c1"), 4, "no-such-connector"),
        (("certs", "show", "abcdef01"), 4, "no-such-certificate"),
        (("certs", "revoke", "abcdef01", "--scope", "certificate"), 4, "no-such-certificate"),
        (("certs", "revoke", "acme"), 2, "usage"),
        (("certs", "rotate", "acme/walldorf/c1"), 4, "no-such-connector"),
        (("ca", "rollback"), 5, "wrong-stage"),
    ],
)
def test_what_is_refused(shell, arguments, exit_code, code):
    assert shell.problem(exit_code, *arguments)["code"] == code


@pytest.mark.parametrize(
    ("name", "cause", "hint"),
    [
        ("acne/walldorf/c1", "no tenant 'acne'", "Did you mean acme?"),
        ("acme/waldorf/c1", "no location 'waldorf'", "Did you mean walldorf?"),
        ("Acme/walldorf/c1", "names no connector", "a-z, 0-9"),
    ],
)
def test_a_mistyped_name_is_told_apart(shell, name, cause, hint):
    code, _, err = shell.run("tokens", "create", name)
    assert code in {2, 4}
    assert cause in err
    assert hint in err


def test_where_there_is_no_tenant_none_is_meant(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json("init", "--advertise", "localhost:8443", "--state-dir", str(tmp_path / "state"))
    assert shell.problem(4, "tokens", "create", "acme/walldorf/c1")["remedy"] == "Add it to the relay's config."


def test_whoever_bars_a_name_that_never_joined_is_told(shell):
    told = shell.json("connectors", "block", "acme/walldorf/c1")
    assert not told["known"]
    assert "None of this name has joined" in shell.run("connectors", "block", "acme/walldorf/c2")[1]
    assert "None of this name" not in shell.run("connectors", "block", "acme/walldorf/c2")[1]
    assert "c1" in shell.problem(4, "connectors", "show", "acme/waldorf/c1")["remedy"]


def test_a_relay_that_was_not_upgraded_yet_bars_one_as_well(shell, monkeypatch):
    done = {"connector": "acme/walldorf/c1", "blocked": True, "changed": True}
    monkeypatch.setattr(cli_identity, "call", lambda *_, **__: done)
    assert shell.run("connectors", "block", "acme/walldorf/c1") == (0, "acme/walldorf/c1 is blocked.\n", "")


def test_check_looks_at_the_state(shell):
    assert shell.json("check")["warnings"] == []
    (key,) = (shell.config.parent / "state" / "ca").glob("issuing-*.key")
    key.chmod(0o644)
    (warning,) = shell.json("check")["warnings"]
    assert "no certificate can be signed" in warning["message"]
    assert "chmod 600" in warning["message"]
    key.chmod(0o600)
    written = shell.config.read_text()
    shell.config.write_text(written.replace('"localhost"', '"other.test"'))
    assert shell.problem(3, "check")["code"] == "trust-domain-changed"
    shell.config.write_text(written)
    (shell.config.parent / "state" / "state.db").write_bytes(b"nothing of the kind" * 300)
    assert shell.problem(1, "check")["code"] == "state-unusable"


def test_a_connector_can_be_barred_before_it_ever_came(shell):
    assert shell.json("connectors", "block", "acme/walldorf/c1", "--reason", "stolen")["changed"]
    assert not shell.json("connectors", "block", "acme/walldorf/c1")["changed"]
    assert shell.problem(5, "tokens", "create", "acme/walldorf/c1")["code"] == "connector-blocked"
    assert shell.json("connectors", "list")["connectors"][0]["state"] == "blocked"
    assert shell.json("connectors", "unblock", "acme/walldorf/c1")["changed"]
    shell.run("tokens", "create", "acme/walldorf/c1")


def test_a_roll_over_begins_and_goes_back(shell):
    begun = shell.json("ca", "rotate")
    assert begun["stage"] == "published"
    assert len(begun["generations"]) == 2
    assert shell.problem(5, "ca", "rotate")["code"] == "wrong-stage"
    assert shell.json("ca", "rollback")["stage"] == "steady"
    assert shell.json("ca", "status")["generations"][0]["generation"] == 1


def test_a_compromised_ca_is_replaced_at_once(shell):
    token = shell.json("tokens", "create", "acme/walldorf/c1")["token"]
    assert "--skip" in shell.problem(2, "ca", "rotate", "--compromised", "--skip", "acme/walldorf/c1")["remedy"]
    assert [one["generation"] for one in shell.json("ca", "status")["generations"]] == [1]
    done = shell.json("ca", "rotate", "--compromised")
    assert [one["generation"] for one in done["generations"]] == [2]
    assert [one["token"] for one in done["tokens_ended"]] == [token]


def test_the_audit_trail(shell):
    shell.run("tokens", "create", "acme/walldorf/c1")
    shell.json("certs", "revoke", "acme/walldorf/c1", "--reason", "lost")
    found = shell.json("events")["events"]
    assert [one["kind"] for one in found] == [
        "initialised", "root-created", "issuing-created", "token-created", "revoked",
    ]  # fmt: skip
    assert found[-1]["reason"] == "lost"
    assert {one["by"] for one in found if one["kind"] in {"initialised", "token-created"}} == {user_name()}
    assert [one["number"] for one in shell.json("events", "--after", "3")["events"]] == [4, 5]
    assert shell.json("events", "--after", "9")["events"] == []
    assert shell.problem(2, "events", "--after", "-1")
    assert shell.run("events", "--after", "5")[1] == "no events\n"
    _, out, _ = shell.run("events")
    assert "token-created" in out


def test_a_revocation_that_concerned_nobody_says_so(shell):
    _, out, _ = shell.run("certs", "revoke", "acme/walldorf/c77")
    assert out.splitlines() == [
        "Revoked connector acme/walldorf/c77: 0 certificates that counted.",
        "If one should have, compare the name with 'cloud-relay certs list'.",
    ]


def test_who_asks_is_told_with_every_command(shell, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "alice")
    shell.run("tokens", "create", "acme/walldorf/c1")
    assert shell.json("events")["events"][-1]["by"].startswith("alice (as ")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # root alone is believed about somebody else
    assert user_name() == "#4000000"


def test_a_wrong_state_dir_is_not_made(shell, tmp_path):
    shell.config.write_text(shell.config.read_text().replace("/state", "/elsewhere"))
    assert shell.problem(3, "tokens", "list")["code"] == "not-initialised"
    assert not (tmp_path / "elsewhere").exists()


def test_every_table_can_be_shown(shell):
    shell.run("tokens", "create", "acme/walldorf/c1")
    shell.json("connectors", "block", "acme/walldorf/c1")
    for command in (("certs", "list"), ("connectors", "list"), ("connectors", "show", "acme/walldorf/c1"),
                    ("ca", "status"), ("tokens", "list"), ("events",), ("certs", "rotate")):  # fmt: skip
        code, out, err = shell.run(*command)
        assert (code, err) == (0, ""), command
        assert out


def test_a_relay_of_somebody_elses_ca_signs_nothing(shell, tmp_path, certificates):
    text = shell.config.read_text().replace(
        "advertise:", f"tls: {{certificate: {certificates[0]}, key: {certificates[1]}, client_ca: {certificates[2]}}}\n"
        "  advertise:")  # fmt: skip
    shell.config.write_text(text)
    for command in (("tokens", "create", "acme/walldorf/c1"), ("certs", "rotate"), ("ca", "rotate"), ("ca", "status")):
        assert shell.problem(5, *command)["code"] == "own-ca"
    assert shell.json("connectors", "block", "acme/walldorf/c1")["changed"]
    assert shell.json("certs", "revoke", "ab" * 32, "--scope", "certificate")["scope"] == "certificate"


@pytest.fixture
def certificates(tmp_path):
    (tmp_path / "pki").mkdir()
    pki = Pki(tmp_path / "pki")
    pair = pki.relay()
    return pair.certificate, pair.key, pki.ca


def test_the_clock_is_accepted_by_the_operators_word(shell):
    assert shell.json("ca", "accept-clock")["now"]
    last = shell.json("events")["events"][-1]
    assert (last["kind"], bool(last["by"])) == ("clock-accepted", True)


def test_a_compromised_ca_waits_for_nobody(shell):
    shell.json("connectors", "block", "acme/walldorf/c1")
    assert shell.problem(2, "ca", "rotate", "--compromised", "--skip", "acme/walldorf/c1")
    assert shell.json("ca", "status")["generations"][0]["generation"] == 1


def test_a_certificate_that_is_not_known_yet_can_be_revoked_by_all_of_its_digits(shell):
    assert shell.json("certs", "revoke", "AB:" * 31 + "AB", "--scope", "certificate")["certificates"] == []
    assert shell.json("events")["events"][-1]["fingerprint"] == "ab" * 32
