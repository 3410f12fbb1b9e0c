"""The list of events on disk: all or nothing, one writer, whatever the disk does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from cloud_relay.identity import store as store_module
from cloud_relay.identity.events import Kind, load, new_event
from cloud_relay.identity.store import Conflict, SqliteStore, StateError, StateLock
from shared.exits import CommandError
from tests.cloud_relay.identity.kit import NOW


def blocked(name: str):
    return new_event(Kind.BLOCKED, NOW, tenant="acme", location="walldorf", connector=name, reason="")


@pytest.fixture
async def store(tmp_path):
    opened = SqliteStore(tmp_path / "state.db")
    yield opened
    await opened.close()


async def test_both_ways(store, tmp_path):
    stored = await store.append(0, [blocked("c1"), blocked("c2")], {"ab": b"chain"})
    assert [event.number for event in stored] == [1, 2]
    again = SqliteStore(tmp_path / "state.db")
    assert await again.read() == stored
    assert await again.read(1) == stored[1:]
    assert await again.leaf("ab", NOW) == b"chain"
    assert await again.leaf("cd", NOW) is None
    assert await again.leaf("ab", NOW + timedelta(hours=25)) is None
    await again.close()


def test_many_may_make_the_file_at_the_same_moment(tmp_path):
    for number in range(20):
        path, all_are_there = tmp_path / f"{number}.db", threading.Barrier(6)

        def opened(path: Path = path, all_are_there: threading.Barrier = all_are_there) -> SqliteStore:
            all_are_there.wait()
            return SqliteStore(path)

        with ThreadPoolExecutor(6) as workers:
            stores = [worker.result() for worker in [workers.submit(opened) for _ in range(6)]]
        for one in stores:
            asyncio.run(one.close())


def test_a_file_that_somebody_holds_for_good_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match=r"state\.db: database is locked"):
        SqliteStore(tmp_path / "state.db")
    holder.close()


async def test_compare_and_set(store):
    await store.append(0, [blocked("c1")])
    for after in (0, 2):
        with pytest.raises(Conflict):
            await store.append(after, [blocked("c2")])
    assert len(await store.read()) == 1


async def test_events_stay(store, tmp_path):
    await store.append(0, [blocked("c1")])
    with sqlite3.connect(tmp_path / "state.db") as other:
        for statement in ("DELETE FROM events", "UPDATE events SET kind = 'unblocked'"):
            with pytest.raises(sqlite3.IntegrityError, match="stay"):
                other.execute(statement)
    other.close()


async def test_only_the_owner_may_read(store, tmp_path):
    await store.append(0, [blocked("c1")])
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_what_is_no_state(tmp_path):
    (tmp_path / "state.db").write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(StateError, match="damaged"):
        SqliteStore(tmp_path / "state.db")


async def test_a_newer_version_is_left_alone(store, tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(StateError, match="newer version"):
        SqliteStore(tmp_path / "other.db")


def test_an_event_of_a_newer_version_is_not_guessed_at():
    with pytest.raises(ValueError, match="does not know"):
        load(1, NOW.timestamp(), "teleported", b"{}")


def test_one_process_at_a_time(tmp_path):
    first, second = StateLock(tmp_path), StateLock(tmp_path)
    first.acquire()
    with pytest.raises(CommandError, match="another process"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small disk needs root")
def test_a_full_disk(tmp_path):
    """On a tmpfs of its own of 256 KiB: the append that does not fit fails with the cause, and the list stays whole."""
    code = """
import asyncio, sys
from pathlib import Path
from cloud_relay.identity.events import Kind, new_event
from cloud_relay.identity.store import SqliteStore, StateError
from datetime import UTC, datetime

async def main():
    store = SqliteStore(Path(sys.argv[1]) / "state.db")
    number = 0
    event = new_event(Kind.BLOCKED, datetime.now(UTC), tenant="acme", location="w", connector="c1", reason="x" * 4000)
    try:
        while number < 1000:
            number += len(await store.append(number, [event]))
    except StateError as error:
        print(error)
    assert 0 < number < 1000, number
    assert len(await store.read()) == number
    Path(sys.argv[1], "ballast").unlink()
    await store.append(number, [event])
    assert len(await store.read()) == number + 1
    await store.close()

asyncio.run(main())
"""
    script = 'mount -t tmpfs -o size=256k none $1 && head -c 65536 /dev/zero > $1/ballast && exec $2 -c "$3" $1'
    python = str(Path(".venv/bin/python").absolute())
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), python, code], capture_output=True, text=True,
        timeout=50, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout
