"""Commands that root runs on a state of the relay's own user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.exits import CommandError
from shared.owner import as_owner
from tests.cloud_relay.identity.shell import INIT, Shell

NOBODY = 65_534


class System:
    """A process of root's as far as `os` tells, and what it becomes."""

    def __init__(self, user: int = 0) -> None:
        self.user, self.group, self.groups = user, 0, [0, 27]
        self.refuses = False

    def give(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(os, "geteuid", lambda: self.user)
        patch.setattr(os, "getgroups", lambda: self.groups)
        for name in ("user", "group"):
            patch.setattr(os, f"sete{name[0]}id", lambda value, name=name: self._set(name, value))
        patch.setattr(os, "setgroups", lambda value: self._set("groups", value))

    def _set(self, name: str, value: object) -> None:
        if self.refuses and value == 1234:
            raise PermissionError(1, "Operation not permitted")
        setattr(self, name, value)


@pytest.fixture
def others(tmp_path, monkeypatch):
    """A directory that is the user 1234's, of the group 99."""
    real = Path.stat
    theirs = SimpleNamespace(st_uid=1234, st_gid=99)
    folder = tmp_path / "state"
    monkeypatch.setattr(
        Path, "stat", lambda path, **named: theirs if path == folder else real(path, **named)
    )  # fmt: skip
    return folder


def test_root_becomes_the_owner_and_root_again(others, monkeypatch):
    system = System()
    system.give(monkeypatch)
    with as_owner(others):
        assert (system.user, system.group, system.groups) == (1234, 99, [99])
    assert (system.user, system.group, system.groups) == (0, 0, [0, 27])
    with pytest.raises(ZeroDivisionError), as_owner(others):
        raise ZeroDivisionError
    assert (system.user, system.group, system.groups) == (0, 0, [0, 27])


def test_only_root_does_so_and_only_for_another(others, tmp_path, monkeypatch):
    system = System(user=77)
    system.give(monkeypatch)
    with as_owner(others):
        assert system.user == 77
    system = System()
    system.give(monkeypatch)
    with as_owner(tmp_path / "not there"):
        assert (system.user, system.groups) == (0, [0, 27])


def test_a_process_that_may_not_says_what_to_do(others, monkeypatch):
    system = System()
    system.refuses = True
    system.give(monkeypatch)
    with pytest.raises(CommandError) as raised, as_owner(others):
        pass
    assert "runuser -u" in raised.value.remedy
    assert (system.user, system.group, system.groups) == (0, 0, [0, 27])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass through; pytest's own may not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_all_that_commands_make_is_the_owners(open_folder, capsys):
    """As root the owner is another user, as else it is this one: in both cases all files are the owner's."""
    state = open_folder / "state"
    state.mkdir(mode=0o700)
    user = os.geteuid() or NOBODY
    os.chown(state, user, -1)
    shell = Shell(open_folder / "relay.yaml", capsys)
    secret = open_folder / "secret"
    secret.write_text("a long passphrase\n")
    secret.chmod(0o600)
    file, passphrase = str(open_folder / "backup"), ("--passphrase-file", str(secret))

    shell.json(*INIT, "--state-dir", str(state))
    shell.json("certs", "rotate")
    shell.json("ca", "rotate")
    shell.json("backup", file, *passphrase)
    shell.json("restore", file, *passphrase, "--replace")
    shell.json("certs", "rotate")

    made = list(state.rglob("*"))
    assert {path.stat().st_uid for path in made} == {user}
    assert {"state.db", "state.lock", "relay.pem"} <= {path.name for path in made}
    assert len(list(state.glob("ca/root-*.key"))) == 2
    assert Path(file).stat().st_uid == os.geteuid()


def test_a_sender_that_is_switched_off_without_a_relay_stays_the_owners(open_folder, capsys):
    state = open_folder / "state"
    state.mkdir(mode=0o700)
    user = os.geteuid() or NOBODY
    os.chown(state, user, -1)
    shell = Shell(open_folder / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", str(state))
    with shell.config.open("a") as config:  # it ends with the tenant
        config.write(f"    senders: [{{name: s4, bearer: {{token_hash: 'sha256:{'0' * 64}'}}}}]\n")
    assert shell.json("senders", "disable", "acme/s4")["changed"]
    assert {path.stat().st_uid for path in state.rglob("*")} == {user}


def test_check_reads_what_root_reads_for_the_service_as_root_and_the_rest_as_the_owner(
    open_folder, capsys, monkeypatch
):
    state, store = open_folder / "state", open_folder / "credstore"
    state.mkdir(mode=0o700)
    store.mkdir(mode=0o700)
    os.chown(state, os.geteuid() or NOBODY, -1)
    secret = store / "ca.passphrase"
    secret.write_text("a long passphrase\n")
    secret.chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(store))
    shell = Shell(open_folder / "relay.yaml", capsys)
    shell.json(*INIT, "--state-dir", str(state), "--passphrase-file", "$CREDENTIALS_DIRECTORY/ca.passphrase")
    assert shell.json("check")["warnings"] == []
    shell.config.write_text(shell.config.read_text().replace("$CREDENTIALS_DIRECTORY", str(store)))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert shell.run("check")[0] == (3 if os.geteuid() == 0 else 0)
