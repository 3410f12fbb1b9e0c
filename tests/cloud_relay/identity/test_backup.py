"""`cloud-relay backup` and `restore`: all of it or nothing, and what is lost is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud_relay.config import RelayConfig
from cloud_relay.identity import backup as backup_module
from cloud_relay.identity import restore as restore_module
from cloud_relay.identity.backup import MANIFEST, make_backup, open_backup
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.store import held
from cloud_relay.sender_state import SenderFile
from shared.config import read_config
from shared.exits import CommandError
from shared.pki.files import write_private
from tests.cloud_relay.identity.shell import Shell


@pytest.fixture
def passphrase(tmp_path):
    file = tmp_path / "backup-passphrase"
    file.write_text("a long passphrase\n")
    file.chmod(0o600)
    return ("--passphrase-file", str(file))


@pytest.fixture
def file(shell, tmp_path, passphrase):
    """A backup of the relay as it was initialised."""
    shell.json("backup", str(tmp_path / "backup"), *passphrase)
    return str(tmp_path / "backup")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def content(folder: Path) -> dict[str, object]:
    """All that lies there: the events, and the other files byte by byte."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found: dict[str, object] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    database = sqlite3.connect(folder / "state.db")
    try:
        found["state.db"] = database.execute("SELECT * FROM events").fetchall()
    finally:
        database.close()
    return found


def named(lost: list[str]) -> list[str]:
    return [one.rpartition(" (")[0] for one in lost]


def test_there_and_back(shell, tmp_path, passphrase, capsys):
    open_token = shell.json("tokens", "create", "acme/walldorf/c1")["token"]
    file = tmp_path / "backup"
    made = shell.json("backup", str(file), *passphrase)
    assert (made["events"], made["without"]) == (4, [])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shell.problem(5, "backup", str(file), *passphrase)["title"].endswith("is there already")

    other = Shell(tmp_path / "elsewhere" / "relay.yaml", capsys)
    other.config.parent.mkdir()
    other.config.write_text(shell.config.read_text().replace('/state"', '/new-state"'))
    done = other.json("restore", str(file), *passphrase)
    assert (done["events"], done["lost"], done["replaced"]) == (4, [], None)
    (row,) = other.json("tokens", "list")["tokens"]
    assert (row["token"], row["state"]) == (open_token, "revoked")
    assert other.json("certs", "rotate")["not_after"]
    assert other.json("ca", "status")["generations"] == shell.json("ca", "status")["generations"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new-state").rglob("*") if path.is_file()} == {
        0o600
    }
    assert "make new ones" in other.run("restore", str(file), *passphrase, "--replace")[1]


def test_a_backup_that_is_none(shell, tmp_path, passphrase, file, state):
    wrong, before = tmp_path / "wrong", content(state)
    wrong.write_text("not the passphrase\n")
    wrong.chmod(0o600)
    assert "passphrase is wrong" in shell.problem(
        7, "restore", file, "--passphrase-file", str(wrong), "--replace"
    )["title"]  # fmt: skip
    damaged = bytearray(Path(file).read_bytes())
    damaged[-5] ^= 1
    Path(file).write_bytes(damaged)
    assert shell.problem(7, "restore", file, *passphrase, "--replace")
    Path(file).write_bytes(b"anything")
    assert "no backup" in shell.problem(3, "restore", file, *passphrase, "--replace")["title"]
    assert content(state) == before


# ---------------------------------------------------------------- all or nothing


def test_a_refused_restore_changes_nothing(shell, passphrase, file, state):
    shell.json("connectors", "block", "acme/walldorf/c9")
    before = content(state)
    config = shell.config.read_text()
    shell.config.write_text(config.replace('"localhost"', '"other.test"'))
    assert "localhost" in shell.problem(5, "restore", file, *passphrase, "--replace")["title"]
    assert content(state) == before
    shell.config.write_text(config)
    assert shell.json("connectors", "list")["connectors"][0]["state"] == "blocked"


def test_whoever_restores_beside_a_running_relay_is_told_to_stop_it(shell, passphrase, file, state):
    with held(state):
        assert "Stop the relay" in shell.problem(5, "restore", file, *passphrase, "--replace")["remedy"]


def test_a_full_disk_changes_nothing(shell, passphrase, file, state, monkeypatch):
    before = content(state)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore_module, "write_private", full)
        assert "No space left" in shell.problem(1, "restore", file, *passphrase, "--replace")["title"]
    assert content(state) == before


@pytest.mark.parametrize("rename", range(1, 5))
def test_a_crash_between_two_renames_is_mended_by_the_same_command(
    shell, passphrase, file, state, monkeypatch, rename
):  # fmt: skip
    shell.json("connectors", "block", "acme/walldorf/c9")
    real, count = Path.rename, 0

    def dies(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == rename:
            raise OSError(5, "the power went")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        patch.setattr(shutil, "rmtree", lambda *_args, **_named: None)  # nobody tidies up after a crash
        assert "Run it again" in shell.problem(1, "restore", file, *passphrase, "--replace")["remedy"]
    assert count == rename
    done = shell.json("restore", file, *passphrase, "--replace")
    assert named(done["lost"]) == ["blocked acme/walldorf/c9"]
    assert shell.json("ca", "status")["stage"] == "steady"
    assert shell.json("certs", "rotate")["not_after"]
    assert not (state / "restoring").exists()
    assert list(state.glob("replaced-*/state.db"))
    assert list(state.glob("replaced-*/ca/root-*.key"))


def test_a_write_ahead_log_that_lies_about_is_not_played_into_the_new_state(shell, tmp_path, passphrase, file, state):
    events = sqlite3.connect(state / "state.db")
    try:
        events.execute("PRAGMA wal_autocheckpoint=0")
        with events:
            events.execute("CREATE TABLE foreign_table (x)")
            events.executemany("INSERT INTO foreign_table VALUES (?)", [("x" * 4000,)] * 50)
        stale = (state / "state.db-wal").read_bytes()
    finally:
        events.close()
    (state / "state.db").unlink()
    (state / "state.db-wal").write_bytes(stale)
    shell.json("restore", file, *passphrase)
    assert [one["kind"] for one in shell.json("events")["events"]][-1] == "restored"
    assert list(state.glob("replaced-*/state.db-wal"))
    assert not (state / "state.db-wal").exists()


def test_two_restores_within_a_second(shell, passphrase, file, state):
    for _ in range(3):
        shell.json("restore", file, *passphrase, "--replace")
    assert len(list(state.glob("replaced-*/state.db"))) == 3


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but some text of some length", b"\0" * 8192])
def test_a_damaged_state_is_what_a_restore_is_for(shell, passphrase, file, state, damage):
    (state / "state.db").write_bytes(damage)
    done = shell.json("restore", file, *passphrase, "--replace")
    assert shell.json("ca", "status")["stage"] == "steady"
    assert done["lost"] == []
    (state / "state.db").write_bytes(b"not a database at all, but some text of some length")
    code, out, _ = shell.run("restore", file, *passphrase, "--replace")
    assert code == 0
    assert "cannot be named" in out
    assert "damaged" in out


# ---------------------------------------------------------------- what is lost


def test_what_is_lost_is_named(shell, tmp_path, passphrase, file):
    token = shell.json("tokens", "create", "acme/walldorf/c2", "--targets", "logs")["token"]
    shell.json("tokens", "revoke", token)
    shell.json("connectors", "block", "acme/walldorf/c9")
    shell.json("certs", "revoke", "acme/walldorf/c1")
    shell.json("ca", "rotate")
    assert "--replace" in shell.problem(5, "restore", file, *passphrase)["remedy"]
    lost = shell.json("restore", file, *passphrase, "--replace")["lost"]
    assert named(lost)[:4] == [
        f"token-created {token} for acme/walldorf/c2", f"token-revoked {token} for acme/walldorf/c2",
        "blocked acme/walldorf/c9", "revoked acme/walldorf/c1",
    ]  # fmt: skip
    assert "roll-over published, generation 2 of the CA" in named(lost)
    assert shell.json("connectors", "list")["connectors"] == []
    assert list((tmp_path / "state").glob("replaced-*/state.db"))


def test_numbers_alone_say_nothing_across_two_histories(shell, tmp_path, passphrase, file):
    shell.json("connectors", "block", "acme/walldorf/c1")
    shell.json("connectors", "block", "acme/walldorf/c2")
    later = str(tmp_path / "later")
    shell.json("backup", later, *passphrase)
    shell.json("restore", file, *passphrase, "--replace")
    shell.json("connectors", "block", "acme/walldorf/c3")  # number 5, as c2 in the backup
    lost = shell.json("restore", later, *passphrase, "--replace")["lost"]
    assert named(lost) == ["blocked acme/walldorf/c3"]


def test_a_ca_that_was_given_up_is_not_revived(shell, passphrase, file, state):
    shell.json("ca", "rotate", "--compromised")
    before = content(state)
    problem = shell.problem(5, "restore", file, *passphrase, "--replace")
    assert problem["code"] == "revives-compromised-ca"
    assert "--force" in problem["remedy"]
    assert content(state) == before
    assert [one["generation"] for one in shell.json("ca", "status")["generations"]] == [2]
    lost = shell.json("restore", file, *passphrase, "--replace", "--force")["lost"]
    assert "roll-over compromised, generation 2 of the CA" in named(lost)


# ---------------------------------------------------------------- what is in it


def relay(shell: Shell) -> RelayConfig:
    return read_config(shell.config, RelayConfig).config


async def test_its_time_is_before_the_first_copy_and_in_whole_seconds(shell, tmp_path, monkeypatch):
    asked: list[str] = []
    real = backup_module._database

    async def copied(state):
        asked.append("copy")
        return await real(state)

    def clock() -> datetime:
        asked.append("clock")
        return datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)

    monkeypatch.setattr(backup_module, "_database", copied)
    await make_backup(relay(shell), tmp_path / "file", b"passphrase", clock)
    assert asked == ["clock", "copy"]
    manifest = json.loads(open_backup(tmp_path / "file", b"passphrase")[MANIFEST])
    assert manifest["at"] == datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()


async def test_a_relay_that_always_writes_is_backed_up_at_once(shell, tmp_path, monkeypatch):
    """Another event with each copy: the copies never agree, and need not."""
    copies = 0
    real = backup_module._database

    async def copied(state):
        nonlocal copies
        copies += 1
        found = await real(state)
        database = sqlite3.connect(state)
        try:
            with database:
                database.execute(
                    "INSERT INTO events SELECT max(number) + 1, max(at), 'unblocked', ? FROM events",
                    (b'{"tenant":"acme","location":"walldorf","connector":"c1"}',),
                )
        finally:
            database.close()
        return found

    monkeypatch.setattr(backup_module, "_database", copied)
    made = await make_backup(relay(shell), tmp_path / "file", b"passphrase")
    assert (copies, made["events"]) == (1, 3)


async def test_a_state_whose_keys_went_meanwhile_is_copied_once_more(shell, tmp_path, monkeypatch):
    """The CA is replaced between the copy of the state and that of the keys."""
    real, rotated = backup_module._database, tmp_path / "rotated"

    async def copied(state):
        found = await real(state)
        if not rotated.exists():
            rotated.touch()
            await rotate(shell)
        return found

    monkeypatch.setattr(backup_module, "_database", copied)
    await make_backup(relay(shell), tmp_path / "file", b"passphrase")
    files = open_backup(tmp_path / "file", b"passphrase")
    kept = {f"ca/{path.name}" for path in (tmp_path / "state" / "ca").iterdir()}  # of the new CA only
    assert len(kept) == 2
    assert kept <= files.keys()
    assert json.loads(files[MANIFEST])["events"] > 3


async def rotate(shell: Shell) -> None:
    from cloud_relay.identity.office import open_office
    from shared.clock import TrustedClock

    office = await open_office(relay(shell), TrustedClock())
    try:
        await office.roll_over.compromised()
    finally:
        await office.close()


async def test_a_lost_issuing_key_is_said_and_a_roots_that_is_away_is_named(shell, tmp_path):
    keys = KeyFolder(tmp_path / "state").folder
    (root,) = keys.glob("root-*.key")
    root.rename(tmp_path / "offline.key")
    made = await make_backup(relay(shell), tmp_path / "file", b"passphrase")
    assert made["without"] == [f"ca/{root.name}"]
    for path in keys.glob("issuing-*.key"):
        path.unlink()
    with pytest.raises(CommandError, match="sign nothing"):
        await make_backup(relay(shell), tmp_path / "other", b"passphrase")
    assert not (tmp_path / "other").exists()


def test_what_the_state_holds_about_senders_is_backed_up(shell, tmp_path, passphrase, state):
    file = tmp_path / "backup"
    write_private(state / "token-keys.json", b"the keys of then")
    senders = SenderFile(state / "senders.json")
    senders.set_disabled(("acme", "then"), 1.0)
    shell.json("backup", str(file), *passphrase)
    write_private(state / "token-keys.json", b"damaged since")
    senders.set_disabled(("acme", "then"), None)
    senders.set_disabled(("acme", "since"), 2.0)
    shell.json("restore", str(file), *passphrase, "--replace")
    assert (state / "token-keys.json").read_bytes() == b"the keys of then"
    assert stat.S_IMODE((state / "token-keys.json").stat().st_mode) == 0o600
    senders.load()
    assert senders.disabled() == {("acme", "then"): 1.0, ("acme", "since"): 2.0}, "a restore lets nobody in"
    (aside,) = state.glob("replaced-*/token-keys.json")
    assert aside.read_bytes() == b"damaged since"
