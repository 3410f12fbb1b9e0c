"""A backup's identity put into a state directory: all of it or nothing, and what it cannot bring back is told.

    state.db, ca/, *.json           ──1──▶  replaced-<time>/         (nothing of the old state is ever removed)
    restoring/{ca/, *.json, state.db} ──2──▶  ca/, *.json, state.db  (without state.db nothing counts)

Everything is unpacked, checked and noted down in `restoring` first. A crash during the renames leaves a directory
without a state; the same restore once more moves what lies about aside and begins anew. No join token is revived, and a
sender that is switched off, in the backup or since, stays so.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from cloud_relay import sender_state
from cloud_relay.config import RelayConfig
from cloud_relay.identity.backup import MANIFEST, SENDER_FILES, folded, open_backup
from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.keys import CA_FOLDER
from cloud_relay.identity.losses import distrusted, losses
from cloud_relay.identity.own import OWN_FILE
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError, held
from cloud_relay.sender_state import merge_disabled
from shared.clock import rfc3339
from shared.exits import CommandError, ExitCode
from shared.owner import as_owner, make_state_dir
from shared.pki.files import write_private

RESTORING: Final = "restoring"
REPLACED: Final = "replaced-"
_WAL, _SHM = f"{STATE_FILE}-wal", f"{STATE_FILE}-shm"


class _Old(NamedTuple):
    """What was there: its events, or why they cannot be read."""

    events: list[Event]
    unreadable: str | None = None


async def restore_backup(
    config: RelayConfig, path: Path, passphrase: bytes, *, replace: bool = False, force: bool = False, by: str = ""
) -> dict[str, Any]:
    """Put the backup into the config's state_dir; what became of it. CommandError says why not; then nothing changed.

    `replace`: the old state is moved aside. `force`: also if the backup revives a CA that was given up as compromised.
    """
    files = open_backup(path, passphrase)
    manifest = json.loads(files.pop(MANIFEST))
    folder = config.state_dir
    make_state_dir(folder)
    with as_owner(folder), held(folder, "Stop the relay first, or wait for the command that has it."):
        _refuse_occupied(folder, replace)
        old = await _old(folder)
        try:
            backup = await _prepare(config, files, manifest, by)
            _refuse_distrusted(old.events, backup, force)
            aside = _swap(folder)
        finally:
            shutil.rmtree(folder / RESTORING, ignore_errors=True)
    return {
        "state_dir": str(folder), "events": manifest["events"], "backup_at": rfc3339(_at(manifest)),
        "replaced": None if aside is None else str(aside), "lost": losses(old.events, backup),
        "unreadable": old.unreadable,
    }  # fmt: skip


def _at(manifest: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(manifest["at"], UTC)


# ---------------------------------------------------------------- what was there


def _refuse_occupied(folder: Path, replace: bool) -> None:
    if (folder / STATE_FILE).exists() and not replace:
        raise CommandError(
            ExitCode.REFUSED, f"there is a state in {folder} already",
            "Add --replace to put the backup in its place; the old one is moved aside.",
        )  # fmt: skip


async def _old(folder: Path) -> _Old:
    state = _old_state(folder)
    if state is None:
        return _Old([])
    try:
        # Closing it also brings its write-ahead log into the file, so that one rename moves all of it.
        return _Old(await _events(state))
    except (StateError, OverflowError) as error:
        return _Old([], str(error))


def _old_state(folder: Path) -> Path | None:
    """The state that this restore replaces: after a crash between two renames it lies aside already."""
    if (folder / STATE_FILE).exists():
        return folder / STATE_FILE
    aside = [state for state in folder.glob(f"{REPLACED}*/{STATE_FILE}") if state.is_file()]
    return max(aside, default=None)


async def _events(state: Path) -> list[Event]:
    store = SqliteStore(state)
    try:
        return await store.read()
    finally:
        await store.close()


# ---------------------------------------------------------------- the new one, beside it


async def _prepare(config: RelayConfig, files: dict[str, bytes], manifest: dict[str, Any], by: str) -> list[Event]:
    """Unpack into `restoring`, check, and note the restore there; the events of the backup."""
    folder = config.state_dir / RESTORING
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a restore that was killed
        (folder / CA_FOLDER).mkdir(mode=0o700, parents=True)
        if senders := files.get(sender_state.FILE):
            files[sender_state.FILE] = merge_disabled(_present_senders(config.state_dir), senders)
        for name, data in files.items():
            write_private(folder / name, data)
        return await _noted(folder / STATE_FILE, manifest, config, by)
    except (OSError, StateError) as error:
        raise CommandError(ExitCode.FAILED, f"cannot restore into {config.state_dir}: {error}") from error


async def _noted(state: Path, manifest: dict[str, Any], config: RelayConfig, by: str) -> list[Event]:
    store = SqliteStore(state)
    try:
        events = await store.read()
        _check_fits(folded(events), config)
        noted = new_event(
            Kind.RESTORED, datetime.now(UTC), backup_at=manifest["at"], backup_number=manifest["events"], by=by
        )  # fmt: skip
        await store.append(len(events), [noted])
    finally:
        await store.close()
    if state.with_name(_WAL).exists():  # as on a full disk: its tokens would come back with it
        raise StateError(f"{state}: the write-ahead log could not be brought into it")
    return events


def _check_fits(book: Book, config: RelayConfig) -> None:
    if config.tunnel.tls is not None:
        return
    if not book.is_initialised:
        raise CommandError(
            ExitCode.REFUSED, "the backup holds no CA, and the config names no certificates (tunnel.tls)",
            "Is this the right config?",
        )  # fmt: skip
    if book.trust_domain != config.trust_domain:
        raise CommandError(
            ExitCode.REFUSED, f"the backup is of the trust domain {book.trust_domain}",
            f"Write trust_domain: {book.trust_domain} into the config.",
        )  # fmt: skip


def _refuse_distrusted(old: list[Event], backup: list[Event], force: bool) -> None:
    step = distrusted(old, backup)
    if step is not None and not force:
        raise CommandError(
            ExitCode.REFUSED,
            f"the backup is from before 'ca rotate --compromised' of {rfc3339(step.at)}: it would revive a CA whose "
            "keys are in other hands",
            "Use a later backup. If there is none: --force, and 'ca rotate --compromised' once more at once.",
            "revives-compromised-ca",
        )  # fmt: skip


# ---------------------------------------------------------------- the change of places


def _swap(folder: Path) -> Path | None:
    """Old out, new in; where the old is. CommandError if it stopped midway."""
    try:
        aside = _move_aside(folder)
        (folder / OWN_FILE).unlink(missing_ok=True)  # made anew at the start
        for name in (CA_FOLDER, *SENDER_FILES, STATE_FILE):
            if (folder / RESTORING / name).exists():
                (folder / RESTORING / name).rename(folder / name)
        _sync(folder)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"the restore into {folder} stopped midway: {error}",
            f"Run it again; all of the old state is in {folder}, or in a folder {REPLACED}… there.",
        ) from error  # fmt: skip
    return aside


def _move_aside(folder: Path) -> Path | None:
    """Whatever is there of a state, the write-ahead log of a damaged one too: SQLite would play it into the new one."""
    replaced = [name for name in SENDER_FILES if (folder / RESTORING / name).exists()]
    there = [name for name in (STATE_FILE, _WAL, _SHM, CA_FOLDER, *replaced) if (folder / name).exists()]
    if not there:
        return None
    aside = _new_folder(folder)
    for name in there:
        (folder / name).rename(aside / name)
    _sync(aside)
    _sync(folder)
    return aside


def _present_senders(folder: Path) -> Path:
    """Who is switched off now: after a crash between two renames that lies aside already."""
    if (folder / sender_state.FILE).exists():
        return folder / sender_state.FILE
    return max(folder.glob(f"{REPLACED}*/{sender_state.FILE}"), default=folder / sender_state.FILE)


def _new_folder(folder: Path) -> Path:
    """replaced-<time>, with a further number if there is one of this second."""
    stem = f"{REPLACED}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    taken = len(list(folder.glob(f"{stem}*")))
    aside = folder / (f"{stem}-{taken + 1}" if taken else stem)
    aside.mkdir(mode=0o700)
    return aside


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
