"""The relay's identity in one encrypted file, while the relay runs.

    "qanat-backup-1\\n"  salt (16)  nonce (12)  AES-256-GCM(a tar: manifest.json, state.db, ca/*.key, *.json)

The key is scrypt over a passphrase; the first line is authenticated with the rest. The state is copied as SQLite copies
a database that is in use, the keys after it: what the copied state needs to sign must be among them. With it goes what
the state directory holds about senders: the keys of their tokens, and who is switched off.
"""

from __future__ import annotations

import io
import json
import secrets
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cloud_relay import sender_state
from cloud_relay.config import RelayConfig
from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event
from cloud_relay.identity.keys import CA_FOLDER, KeyFolder
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError
from cloud_relay.oauth import keys as token_keys
from shared.exits import CommandError, ExitCode
from shared.owner import as_owner
from shared.pki.files import write_private

MAGIC: Final = b"qanat-backup-1\n"
MAX_BACKUP: Final = 1 << 30
MANIFEST: Final = "manifest.json"
SENDER_FILES: Final = (token_keys.FILE, sender_state.FILE)
"""What the state directory holds about senders."""

TRIES: Final = 5
"""Copies made before a key that is not there counts as lost: a roll-over removes keys between two copies, seldom."""

_SALT, _NONCE = 16, 12
_DAMAGED: Final = "the passphrase is wrong, or the file is damaged"


async def make_backup(
    config: RelayConfig, path: Path, passphrase: bytes, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> dict[str, Any]:
    """Write the backup; what it holds. CommandError if there is nothing to back up, or the file is there already."""
    _require_state(config.state_dir)
    _require_new(path)
    try:
        with as_owner(config.state_dir):
            content, manifest = await _pack(config.state_dir, clock)
        sealed = _seal(content, passphrase)
        write_private(path, sealed)
    except (OSError, sqlite3.Error, StateError) as error:
        raise CommandError(ExitCode.FAILED, f"cannot make the backup: {error}") from error
    return manifest | {"file": str(path), "bytes": len(sealed), "files": len(manifest["files"])}


def open_backup(path: Path, passphrase: bytes) -> dict[str, bytes]:
    """The files by name, the manifest too. CommandError for what is no backup of ours."""
    try:
        with path.open("rb") as file:
            sealed = file.read(MAX_BACKUP + 1)
    except OSError as error:
        raise CommandError(ExitCode.NOT_FOUND, f"cannot read {path}: {error.strerror}") from error
    start = len(MAGIC) + _SALT + _NONCE
    if not sealed.startswith(MAGIC) or not start < len(sealed) <= MAX_BACKUP:
        raise CommandError(ExitCode.CONFIG, f"{path} is no backup that 'cloud-relay backup' made")
    salt, nonce = sealed[len(MAGIC) : len(MAGIC) + _SALT], sealed[len(MAGIC) + _SALT : start]
    try:
        content = AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed[start:], MAGIC)
    except InvalidTag as error:
        raise CommandError(ExitCode.CREDENTIAL, f"{path} cannot be opened: {_DAMAGED}") from error
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file_of = tar.extractfile(member)
            if file_of is not None and _is_ours(member.name):
                found[member.name] = file_of.read()
    return found


def folded(events: list[Event]) -> Book:
    """The book that follows from these events."""
    book = Book()
    for event in events:
        book.apply(event)
    return book


# ---------------------------------------------------------------- packing


def _require_state(state_dir: Path) -> None:
    if not (state_dir / STATE_FILE).exists():
        raise CommandError(ExitCode.NOT_FOUND, f"there is no state in {state_dir}", "Is this the right config?")


def _require_new(path: Path) -> None:
    if path.exists():
        raise CommandError(ExitCode.REFUSED, f"{path} is there already", "Name another file.")


class _Copy(NamedTuple):
    """The state at one moment, and the keys that were there after it."""

    database: bytes
    book: Book
    keys: dict[str, bytes]
    offline: list[str]
    """Keys of roots that were taken away, and are not in the backup therefore."""


async def _pack(folder: Path, clock: Callable[[], datetime]) -> tuple[bytes, dict[str, Any]]:
    """The tar, and its manifest."""
    # Before the first copy and in whole seconds, as certificates have it: what is issued from now on may be missing.
    at = float(int(clock().timestamp()))
    copy = await _copied(folder)
    manifest = {"at": at, "events": copy.book.number, "files": [STATE_FILE, *copy.keys], "without": copy.offline}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {MANIFEST: json.dumps(manifest).encode(), STATE_FILE: copy.database, **copy.keys}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue(), manifest


async def _copied(folder: Path) -> _Copy:
    """A state and all keys that it signs with. A roll-over may remove keys in between: then once more."""
    missing: list[str] = []
    for _ in range(TRIES):
        database, events = await _database(folder / STATE_FILE)
        book, keys = folded(events), _keys(folder)
        missing = [name for name in _needed(folder, book) if name not in keys]
        if not missing:
            return _Copy(database, book, keys, [name for name in _roots(folder, book) if name not in keys])
    raise CommandError(
        ExitCode.FAILED, f"{folder / missing[0]} is missing, so the backup could sign nothing",
        "Put the key back, or restore an older backup.",
    )  # fmt: skip


def _needed(folder: Path, book: Book) -> list[str]:
    current = [book.generations[one] for one in (book.active, book.other) if one]
    files = [None if one.issuing is None else KeyFolder(folder).issuing_path(one.issuing) for one in current]
    return [f"{CA_FOLDER}/{path.name}" for path in files if path is not None]


def _roots(folder: Path, book: Book) -> list[str]:
    files = [KeyFolder(folder).root_path(book.generations[one].root) for one in (book.active, book.other) if one]
    return [f"{CA_FOLDER}/{path.name}" for path in files]


def _keys(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / CA_FOLDER).glob("*.key")):
        try:
            found[f"{CA_FOLDER}/{path.name}"] = path.read_bytes()
        except FileNotFoundError:  # a roll-over has just removed it
            continue
    return found | {name: (folder / name).read_bytes() for name in SENDER_FILES if (folder / name).exists()}


async def _database(state: Path) -> tuple[bytes, list[Event]]:
    """The database as one file, and its events."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / STATE_FILE
        source, target = _opened(state), sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        store = SqliteStore(copy)
        try:
            events = await store.read()
        finally:
            await store.close()
        return copy.read_bytes(), events


def _opened(state: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{state.absolute().as_uri()}?mode=rw", uri=True)  # "ro" would leave a log behind


def _seal(content: bytes, passphrase: bytes) -> bytes:
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    return MAGIC + salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, content, MAGIC)


def _key(passphrase: bytes, salt: bytes) -> bytes:
    # RFC 7914; 64 MiB and a fraction of a second for each guess.
    return Scrypt(salt=salt, length=32, n=1 << 16, r=8, p=1).derive(passphrase)


def _is_ours(name: str) -> bool:
    folder, _, rest = name.rpartition("/")
    return name in {MANIFEST, STATE_FILE, *SENDER_FILES} or (folder == CA_FOLDER and rest.endswith(".key"))
