"""The list of events on disk, behind an async interface with compare-and-set.

SQLite in the relay's state directory, synchronous=FULL: what `append` has returned survives a power cut. One process
at a time holds the state (`StateLock`); within it, `append(after, …)` succeeds only if event `after` is the last one.
A table beside the list keeps the certificates that may be asked for once more, each for a day.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, TypeVar

from cloud_relay.identity import events
from cloud_relay.identity.events import Event
from shared.crash_points import reach
from shared.exits import CommandError, ExitCode

STATE_FILE: Final = "state.db"
LOCK_FILE: Final = "state.lock"
KEEP_LEAVES: Final = 24 * 3600.0
"""Seconds for which an answer to the same token and key, or to the same renewal, is the same certificate."""

WAIT: Final = "Wait for the other command, or let the running relay answer at its control socket."
"""What to do where somebody else has the state."""

PATIENCE: Final = 5.0
"""Seconds to wait for others that open the file."""

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS leaves (
    fingerprint TEXT PRIMARY KEY, chain BLOB NOT NULL, keep_until REAL NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events stay'); END;
CREATE TRIGGER IF NOT EXISTS events_stay_there BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events stay'); END;
"""

Result = TypeVar("Result")


class Conflict(Exception):
    """Somebody else has appended meanwhile; nothing was stored."""


class StateError(Exception):
    """The state cannot be read or written; nothing was stored. The message names the file and the cause."""


class EventStore(Protocol):
    """An append-only list of events."""

    async def read(self, after: int = 0, most: int = -1) -> list[Event]:
        """The events after number `after`, in order, at most so many. Raises StateError."""

    async def append(self, after: int, new: Sequence[Event], leaves: Mapping[str, bytes] | None = None) -> list[Event]:
        """Store all of `new`, numbered from `after` + 1, or nothing. Raises Conflict, StateError.

        `leaves`: PEM chains by fingerprint, which `leaf` gives back for a day. Cancelled, all or nothing is stored.
        """

    async def leaf(self, fingerprint: str, at: datetime) -> bytes | None:
        """A PEM chain that was stored within a day before `at`."""

    async def close(self) -> None:
        """Let go of the file."""


class StateLock:
    """One process holds the state: the daemon while it runs, or a command while none does."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / LOCK_FILE
        self._number: int | None = None

    def acquire(self, remedy: str = WAIT) -> None:
        """Hold it. CommandError with this remedy if another process does."""
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(number)
            raise CommandError(
                ExitCode.REFUSED,
                f"another process holds the state in {self.path.parent}",
                remedy,
                "state-locked",
            ) from error
        self._number = number

    def release(self) -> None:
        """Let go of it, if it is held; the file stays."""
        number, self._number = self._number, None
        if number is not None:
            os.close(number)


@contextmanager
def held(state_dir: Path, remedy: str = WAIT) -> Iterator[None]:
    """Be the one process that has the state meanwhile. CommandError with this remedy if another has it."""
    lock = StateLock(state_dir)
    lock.acquire(remedy)
    try:
        yield
    finally:
        lock.release()


class SqliteStore:
    """The list in a file of its own. All calls to SQLite are made by one thread, so that the loop never waits."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, mode 0600. Raises StateError."""
        self.path = path
        self._thread = ThreadPoolExecutor(1, "state")
        try:
            self._connection = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def read(self, after: int = 0, most: int = -1) -> list[Event]:
        """The events after number `after`, in order, at most so many. Raises StateError."""
        return await self._do(lambda: _read_checked(self._connection, self.path, after, most))

    async def append(self, after: int, new: Sequence[Event], leaves: Mapping[str, bytes] | None = None) -> list[Event]:
        """Store all of `new`, or nothing; see EventStore."""
        return await self._do(lambda: _append(self._connection, after, new, leaves or {}))

    async def leaf(self, fingerprint: str, at: datetime) -> bytes | None:
        """A PEM chain that was stored within a day before `at`."""
        return await self._do(lambda: _leaf(self._connection, fingerprint, at.timestamp()))

    async def close(self) -> None:
        """Let go of the file."""
        await self._do(self._connection.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], Result]) -> Result:
        def translated() -> Result:
            try:
                return work()
            except sqlite3.Error as error:
                raise StateError(f"{self.path}: {_cause(error)}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)


def read_events(path: Path) -> list[Event]:
    """The list as it is now, without a lock: to look, not to decide. Raises StateError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            _check_version(connection, path)
            return _read(connection, 0, -1)
    except sqlite3.Error as error:
        raise StateError(f"{path}: {_cause(error)}") from error


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise StateError(f"{path}: made by a newer version of Qanat; run that one")


def _open(path: Path) -> sqlite3.Connection:
    """All workers of a new relay make the file at once, and SQLite lets nobody wait for the change to WAL (`busy`)."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return _open_now(path)
        except (OSError, sqlite3.Error) as error:
            if not _is_busy(error) or time.monotonic() >= until:
                raise StateError(f"{path}: {_cause(error)}") from error
            time.sleep(0.01)


def _open_now(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files get its mode
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _check_version(connection, path)
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version={_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection, after: int, most: int) -> list[Event]:
    rows = connection.execute(
        "SELECT number, at, kind, data FROM events WHERE number > ? ORDER BY number LIMIT ?", (after, most)
    )
    try:
        return [events.load(*row) for row in rows]
    except ValueError as error:
        raise StateError(f"{error}: run the version that wrote it, or a newer one") from error


def _read_checked(connection: sqlite3.Connection, path: Path, after: int, most: int) -> list[Event]:
    _check_version(connection, path)  # another process, of a newer version, may have had the file meanwhile
    return _read(connection, after, most)


def _append(
    connection: sqlite3.Connection, after: int, new: Sequence[Event], leaves: Mapping[str, bytes]
) -> list[Event]:
    numbered = [event._replace(number=number) for number, event in enumerate(new, after + 1)]
    connection.execute("BEGIN IMMEDIATE")
    try:
        (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
        if last != after:
            raise Conflict
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            [(one.number, one.at.timestamp(), one.kind.value, events.dump(one)) for one in numbered],
        )
        if leaves:
            at = numbered[0].at.timestamp()
            connection.execute("DELETE FROM leaves WHERE keep_until < ?", (at,))
            rows = [(fingerprint, chain, at + KEEP_LEAVES) for fingerprint, chain in leaves.items()]
            connection.executemany("INSERT OR REPLACE INTO leaves VALUES (?, ?, ?)", rows)
        reach("relay.state.before-commit")
        connection.execute("COMMIT")
        reach("relay.state.after-commit")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    return numbered


def _leaf(connection: sqlite3.Connection, fingerprint: str, at: float) -> bytes | None:
    row = connection.execute(
        "SELECT chain FROM leaves WHERE fingerprint = ? AND keep_until >= ?", (fingerprint, at)
    ).fetchone()
    return None if row is None else bytes(row[0])


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF == sqlite3.SQLITE_BUSY


def _cause(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return "the disk is full"
    if name in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
        return f"the file is damaged ({error}); restore a backup: 'cloud-relay restore'"
    return str(error)
