"""`cloud-relay init`: all of it or nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cloud_relay.config import RelayConfig
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.store import held
from shared.config import read_config
from tests.cloud_relay.identity.shell import INIT, Shell


def read(shell: Shell) -> RelayConfig:
    return read_config(shell.config, RelayConfig).config


def test_it_makes_a_config_that_runs_and_keys_that_nobody_else_may_read(shell, tmp_path):
    assert shell.json("check")["tenants"] == 1
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_twice_is_refused_and_changes_nothing(shell):
    before, text = shell.json("ca", "status"), shell.config.read_text()
    assert shell.problem(5, "init")["code"] == "already-initialised"
    assert (shell.json("ca", "status"), shell.config.read_text()) == (before, text)


def test_if_missing_uses_what_is_there_also_beside_a_relay(shell, tmp_path):
    before = shell.json("ca", "status")
    with held(tmp_path / "state"):
        again = shell.json("init", "--if-missing")
    assert (again["ca_made"], again["trust_domain"]) == (False, "localhost")
    assert shell.json("ca", "status") == before
    assert "There is a CA" in shell.run("init", "--if-missing")[1]


def test_if_missing_makes_what_is_not_there(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    first = (*INIT, "--if-missing", "--state-dir", str(tmp_path / "state"))
    assert shell.json(*first)["ca_made"]
    shell.config.unlink()
    again = shell.json(*first)
    assert (again["ca_made"], again["config_written"], shell.config.exists()) == (False, True, True)


def test_if_missing_takes_no_ca_of_another_trust_domain(shell, tmp_path, capsys):
    other = Shell(tmp_path / "other.yaml", capsys)
    options = ("--if-missing", "--trust-domain", "other.test", "--state-dir", str(tmp_path / "state"))
    assert other.problem(5, *INIT, *options)["code"] == "already-initialised"
    assert not other.config.exists()


def test_options_that_a_config_would_outweigh_are_refused_by_name(shell, tmp_path):
    options = {
        "--advertise": "relay.test:1", "--trust-domain": "other.test", "--listen": ":1", "--tenant": "zoo",
        "--location": "ulm", "--state-dir": str(tmp_path / "other"), "--passphrase-file": str(tmp_path / "none"),
    }  # fmt: skip
    for option, value in options.items():
        assert option in shell.problem(2, "init", option, value)["title"]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("advertised", "listen"),
    [
        ("relay.test:18443", ":18443"),
        ("relay.test:443", ":8443"),  # needs rights of its own
        ("relay.test:9443", ":8443"),  # is the ingress'
    ],
)
def test_it_listens_at_the_advertised_port_or_says_that_something_has_to_pass_it_on(
    tmp_path, capsys, advertised, listen
):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    made = shell.json("init", "--advertise", advertised, "--state-dir", str(tmp_path / "state"))
    assert (made["listen"], made["advertise"]) == (listen, [advertised])
    assert str(read(shell).tunnel.listen) == listen
    said = shell.run("init", "--if-missing")[1]
    assert ("something in front" in said) is not advertised.endswith(listen)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("--advertise", ()),
        ("--advertise", ("--advertise", "relay.test")),
        ("--listen", ("--advertise", "relay.test:1", "--listen", "everywhere")),
        ("--name", ("--advertise", "relay.test:1", "--name", "Relay 1")),
        ("--trust-domain", ("--advertise", "relay.test:1", "--trust-domain", "Not One")),
        ("--trust-domain", ("--advertise", "[2001:db8::1]:8443")),
        ("--tenant", ("--advertise", "relay.test:1", "--tenant", "A: {", "--location", "ulm")),
        ("--location", ("--advertise", "relay.test:1", "--tenant", "acme", "--location", "-")),
        ("--location", ("--advertise", "relay.test:1", "--tenant", "acme")),
        ("--state-dir", ("--advertise", "relay.test:1", "--state-dir", "a\nb")),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(tmp_path, capsys, named, arguments):
    shell = Shell(tmp_path / "new" / "relay.yaml", capsys)
    state = () if "--state-dir" in arguments else ("--state-dir", "state")
    assert named in shell.problem(2, "init", *arguments, *state)["title"]
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_among_the_credentials_of_systemd(tmp_path, capsys, monkeypatch):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    named = "$CREDENTIALS_DIRECTORY/passphrase"
    ours = ("--state-dir", "state", "--passphrase-file", named)
    assert "CREDENTIALS_DIRECTORY is not set" in shell.problem(2, *INIT, *ours)["title"]
    assert not shell.config.exists()
    secret = tmp_path / "credentials" / "passphrase"
    secret.parent.mkdir()
    secret.touch(mode=0o600)
    secret.write_text("a long passphrase\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent))
    assert shell.json(*INIT, *ours)["config_written"]
    assert named in shell.config.read_text()
    assert "ENCRYPTED" in next((tmp_path / "state" / "ca").glob("*.key")).read_text()
    assert shell.json("check")["warnings"] == []
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "is not set" in shell.problem(3, "check")["detail"]


def test_a_passphrase_that_cannot_be_used_leaves_no_config(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    (tmp_path / "short").write_text("x\n")
    (tmp_path / "short").chmod(0o600)
    assert "8 to 1,000" in shell.problem(3, *INIT, "--passphrase-file", str(tmp_path / "short"))["title"]
    assert not shell.config.exists()


@pytest.mark.parametrize("name", ["a b", "a #b", 'a "b"', "a: {b}", "ä\\", "'%?&"])
def test_a_state_dir_of_any_name(tmp_path, capsys, name):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", name)
    assert read(shell).state_dir == tmp_path / name  # relative to the config, wherever the command is run
    assert (tmp_path / name / "state.db").is_file()
    secret = tmp_path / "secret"
    secret.write_text("a long passphrase\n")
    secret.chmod(0o600)
    assert shell.json("backup", str(tmp_path / "backup"), "--passphrase-file", str(secret))["events"] == 3


def test_all_that_was_said_stands_in_the_config(tmp_path, capsys):
    shell = Shell(tmp_path / "relay.yaml", capsys)
    shell.json(
        "init", "--advertise", "[2001:db8::1]:8443", "--advertise", "relay.test:443", "--trust-domain", "true",
        "--listen", "[::1]:8443", "--tenant", "true", "--location", "1e3", "--location", "null", "--location", "1e3",
        "--state-dir", str(tmp_path / "state"),
    )  # fmt: skip
    config = read(shell)
    assert [str(one) for one in config.tunnel.advertise] == ["[2001:db8::1]:8443", "relay.test:443"]
    assert (config.trust_domain, str(config.tunnel.listen)) == ("true", "[::1]:8443")
    assert list(config.tenants) == ["true"]
    assert list(config.tenants["true"].locations) == ["1e3", "null"]


def test_a_ca_that_cannot_be_made_leaves_no_config(tmp_path, capsys, monkeypatch):
    shell = Shell(tmp_path / "relay.yaml", capsys)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(KeyFolder, "write_issuing", full)
        assert "No space left" in shell.problem(1, *INIT, "--state-dir", str(tmp_path / "state"))["title"]
    assert not shell.config.exists()
    shell.json(*INIT, "--state-dir", str(tmp_path / "state"))


def test_a_config_for_a_ca_that_is_there_is_not_left_either(shell, tmp_path, capsys):
    other = Shell(tmp_path / "other.yaml", capsys)
    assert other.problem(5, *INIT, "--state-dir", str(tmp_path / "state"))["code"] == "already-initialised"
    assert not other.config.exists()
    assert Path(shell.config).exists()
