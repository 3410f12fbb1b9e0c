"""The relay's identity in one encrypted file, and back.

    "qanat-backup-1\\n"  salt (16)  nonce (12)  AES-256-GCM(a tar: manifest.json, state.db, ca/*.key)

The key is scrypt over a passphrase; the first line is authenticated with the rest. The state is copied as SQLite copies
a database that is in use, so that the relay may run meanwhile. A restore revives no join token, and says what it cannot
bring back: what was revoked since.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import sqlite3
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cloud_relay.config import RelayConfig
from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.keys import CA_FOLDER
from cloud_relay.identity.own import OWN_FILE
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError, StateLock
from shared.clock import rfc3339
from shared.exits import CommandError, ExitCode
from shared.pki.files import write_private

MAGIC: Final = b"qanat-backup-1\n"
MAX_BACKUP: Final = 1 << 30
MANIFEST: Final = "manifest.json"
_SALT, _NONCE = 16, 12
_DAMAGED: Final = "the passphrase is wrong, or the file is damaged"


def make_backup(config: RelayConfig, path: Path, passphrase: bytes) -> dict[str, Any]:
    """Write the backup; what it holds. CommandError if there is nothing to back up, or the file is there already."""
    state = config.state_dir / STATE_FILE
    if not state.exists():
        raise CommandError(ExitCode.NOT_FOUND, f"there is no state in {config.state_dir}", "Is this the right config?")
    if path.exists():
        raise CommandError(ExitCode.REFUSED, f"{path} is there already", "Name another file.")
    try:
        content, manifest = _pack(config.state_dir, state)
        sealed = _seal(content, passphrase)
        write_private(path, sealed)
    except (OSError, sqlite3.Error) as error:
        raise CommandError(ExitCode.FAILED, f"cannot make the backup: {error}") from error
    return manifest | {"file": str(path), "bytes": len(sealed), "files": len(manifest["files"])}


async def restore_backup(config: RelayConfig, path: Path, passphrase: bytes, *, replace: bool) -> dict[str, Any]:
    """Put the backup into the config's state_dir; what became of it. CommandError says why not; then nothing changed.

    The old state, if there is one and `replace` says so, is moved aside, and its newer revocations are named.
    """
    files = _open(path, passphrase)
    manifest = json.loads(files.pop(MANIFEST))
    folder = config.state_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StateLock(folder)
    lock.acquire()
    try:
        there = (folder / STATE_FILE).exists()
        if there and not replace:
            raise CommandError(
                ExitCode.REFUSED, f"there is a state in {folder} already",
                "Add --replace to put the backup in its place; the old one is moved aside.",
            )  # fmt: skip
        lost = await _lost(folder / STATE_FILE, manifest["events"]) if there else []
        try:
            _unpack(folder, files, move_aside=there)
            await _note_restore(folder / STATE_FILE, manifest, config)
        except (OSError, StateError) as error:
            raise CommandError(ExitCode.FAILED, f"cannot restore into {folder}: {error}") from error
    finally:
        lock.release()
    return {
        "state_dir": str(folder), "events": manifest["events"], "backup_at": rfc3339(_at(manifest)), "lost": lost
    }  # fmt: skip


def _at(manifest: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(manifest["at"], UTC)


# ---------------------------------------------------------------- packing


def _pack(folder: Path, state: Path) -> tuple[bytes, dict[str, Any]]:
    """The tar, and its manifest. Keys are read after the state, and once more if a roll-over came in between."""
    (database, number), keys = _copied(state), _keys(folder)
    while (again := _copied(state))[1] != number:
        (database, number), keys = again, _keys(folder)
    names = [STATE_FILE, *keys]
    manifest = {"at": datetime.now(UTC).timestamp(), "events": number, "files": names}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {MANIFEST: json.dumps(manifest).encode(), STATE_FILE: database, **keys}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue(), manifest


def _keys(folder: Path) -> dict[str, bytes]:
    return {f"{CA_FOLDER}/{one.name}": one.read_bytes() for one in sorted((folder / CA_FOLDER).glob("*.key"))}


def _copied(state: Path) -> tuple[bytes, int]:
    """The database as one file, and the number of its last event."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / STATE_FILE
        source = sqlite3.connect(f"file:{state}?mode=ro", uri=True)
        target = sqlite3.connect(copy)
        try:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            (number,) = target.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
        finally:
            source.close()
            target.close()
        return copy.read_bytes(), int(number)


def _seal(content: bytes, passphrase: bytes) -> bytes:
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    return MAGIC + salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, content, MAGIC)


def _key(passphrase: bytes, salt: bytes) -> bytes:
    # RFC 7914; 64 MiB and a fraction of a second for each guess.
    return Scrypt(salt=salt, length=32, n=1 << 16, r=8, p=1).derive(passphrase)


# ---------------------------------------------------------------- unpacking


def _open(path: Path, passphrase: bytes) -> dict[str, bytes]:
    """The files by name. CommandError for what is no backup of ours."""
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


def _is_ours(name: str) -> bool:
    folder, _, rest = name.rpartition("/")
    return name in {MANIFEST, STATE_FILE} or (folder == CA_FOLDER and rest.endswith(".key"))


def _unpack(folder: Path, files: dict[str, bytes], *, move_aside: bool) -> None:
    if move_aside:
        aside = folder / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        aside.mkdir(mode=0o700)
        for name in (STATE_FILE, f"{STATE_FILE}-wal", f"{STATE_FILE}-shm", CA_FOLDER):
            if (folder / name).exists():
                (folder / name).rename(aside / name)
    (folder / OWN_FILE).unlink(missing_ok=True)  # made anew at the start
    (folder / CA_FOLDER).mkdir(mode=0o700, exist_ok=True)
    for name, data in files.items():
        if name != STATE_FILE:
            write_private(folder / name, data)
    write_private(folder / STATE_FILE, files[STATE_FILE])  # last: without it nothing counts


async def _note_restore(state: Path, manifest: dict[str, Any], config: RelayConfig) -> None:
    store = SqliteStore(state)
    try:
        book = _folded(await store.read())
        if config.tunnel.tls is None and book.trust_domain != config.trust_domain:
            raise CommandError(
                ExitCode.REFUSED, f"the backup is of the trust domain {book.trust_domain}",
                f"Write trust_domain: {book.trust_domain} into the config.",
            )  # fmt: skip
        restored = new_event(
            Kind.RESTORED, datetime.now(UTC), backup_at=manifest["at"], backup_number=manifest["events"]
        )  # fmt: skip
        await store.append(book.number, [restored])
    except BaseException:
        await asyncio.to_thread(state.unlink)
        raise
    finally:
        await store.close()


async def _lost(state: Path, since: int) -> list[str]:
    """What the state that is replaced knows beyond the backup, and must be done again."""
    store = SqliteStore(state)
    try:
        newer = await store.read(since)
    finally:
        await store.close()
    wanted = {Kind.REVOKED, Kind.BLOCKED, Kind.UNBLOCKED, Kind.TOKEN_REVOKED}
    return [_told(event) for event in newer if event.kind in wanted]


def _told(event: Event) -> str:
    parts = [str(event.data.get(name) or "") for name in ("tenant", "location", "connector")]
    what = "/".join(part for part in parts if part) or str(event.data.get("fingerprint") or event.data.get("token"))
    return f"{event.kind.value} {what} ({rfc3339(event.at)})"


def _folded(events: list[Event]) -> Book:
    book = Book()
    for event in events:
        book.apply(event)
    return book
