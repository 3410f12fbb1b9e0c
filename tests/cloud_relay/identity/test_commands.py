"""The commands about identity, on the state of a relay that does not run: `init` to `restore`."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.cli import app
from shared.cli import invoke
from shared.pki.join_token import parse_join_token
from tests.support.development import Pki


class Shell:
    """Runs `cloud-relay` in this process, on one config."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = invoke(app, [*arguments, "--config", str(self.config)])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def problem(self, exit_code: int, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert (code, out) == (exit_code, ""), err
        found: dict[str, Any] = json.loads(err)
        return found


INIT = ("init", "--advertise", "localhost:8443", "--tenant", "acme", "--location", "walldorf")


@pytest.fixture
def shell(tmp_path, capsys):
    made = Shell(tmp_path / "relay.yaml", capsys)
    made.json(*INIT, "--state-dir", str(tmp_path / "state"))
    return made


def test_init_makes_a_config_that_runs_and_keys_that_nobody_else_may_read(shell, tmp_path):
    assert shell.json("check")["tenants"] == 1
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_init_twice_is_refused_and_changes_nothing(shell):
    before = shell.json("ca", "status")
    assert shell.problem(5, *INIT)["code"] == "already-initialised"
    assert shell.json("ca", "status") == before


def test_init_needs_to_know_how_it_is_reached(tmp_path, capsys):
    assert "--advertise" in Shell(tmp_path / "other.yaml", capsys).problem(2, "init")["title"]
    assert not (tmp_path / "other.yaml").exists()


def test_a_relay_without_a_ca_does_not_start(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", str(tmp_path / "state"))
    (tmp_path / "state" / "state.db").unlink()
    assert "cloud-relay init" in shell.problem(3, "check")["title"]
    assert shell.problem(3, "tokens", "list")["code"] == "not-initialised"


def test_the_trust_domain_is_fixed(shell):
    shell.config.write_text(shell.config.read_text().replace("trust_domain: localhost", "trust_domain: other.test"))
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
        (("tokens", "create", "acme/nowhere/c1"), 5, "unknown-location"),
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
    assert [one["number"] for one in shell.json("events", "--after", "3")["events"]] == [4, 5]
    _, out, _ = shell.run("events")
    assert "token-created" in out


def test_every_table_can_be_shown(shell):
    shell.run("tokens", "create", "acme/walldorf/c1")
    shell.json("connectors", "block", "acme/walldorf/c1")
    for command in (("certs", "list"), ("connectors", "list"), ("connectors", "show", "acme/walldorf/c1"),
                    ("ca", "status"), ("tokens", "list"), ("events",), ("certs", "rotate")):  # fmt: skip
        code, out, err = shell.run(*command)
        assert (code, err) == (0, ""), command
        assert out


@pytest.fixture
def passphrase(tmp_path):
    file = tmp_path / "backup-passphrase"
    file.write_text("a long passphrase\n")
    file.chmod(0o600)
    return ("--passphrase-file", str(file))


def test_backup_and_restore(shell, tmp_path, passphrase, capsys):
    open_token = shell.json("tokens", "create", "acme/walldorf/c1")["token"]
    file = tmp_path / "backup"
    made = shell.json("backup", str(file), *passphrase)
    assert made["events"] == 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shell.problem(5, "backup", str(file), *passphrase)["title"].endswith("is there already")

    other = Shell(tmp_path / "elsewhere" / "relay.yaml", capsys)
    other.config.parent.mkdir()
    other.config.write_text(shell.config.read_text().replace("/state\n", "/new-state\n"))
    done = other.json("restore", str(file), *passphrase)
    assert (done["events"], done["lost"]) == (4, [])
    (row,) = other.json("tokens", "list")["tokens"]
    assert (row["token"], row["state"]) == (open_token, "revoked")
    assert other.json("certs", "rotate")["not_after"]
    assert other.json("ca", "status")["generations"] == shell.json("ca", "status")["generations"]


def test_a_restore_names_what_it_loses(shell, tmp_path, passphrase):
    file = tmp_path / "backup"
    shell.json("backup", str(file), *passphrase)
    shell.json("connectors", "block", "acme/walldorf/c9")
    shell.json("certs", "revoke", "acme/walldorf/c1")
    assert "--replace" in shell.problem(5, "restore", str(file), *passphrase)["remedy"]
    lost = shell.json("restore", str(file), *passphrase, "--replace")["lost"]
    assert [one.rpartition(" (")[0] for one in lost] == ["blocked acme/walldorf/c9", "revoked acme/walldorf/c1"]
    assert shell.json("connectors", "list")["connectors"] == []
    assert list((tmp_path / "state").glob("replaced-*/state.db"))


def test_a_backup_that_is_none(shell, tmp_path, passphrase):
    file, wrong = tmp_path / "backup", tmp_path / "wrong"
    shell.json("backup", str(file), *passphrase)
    wrong.write_text("not the passphrase\n")
    wrong.chmod(0o600)
    assert "passphrase is wrong" in shell.problem(
        7, "restore", str(file), "--passphrase-file", str(wrong), "--replace"
    )["title"]  # fmt: skip
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    assert shell.problem(7, "restore", str(file), *passphrase, "--replace")
    file.write_bytes(b"anything")
    assert "no backup" in shell.problem(3, "restore", str(file), *passphrase, "--replace")["title"]
    assert shell.json("ca", "status")["stage"] == "steady"


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
