"""Files that hold keys and certificates: written whole or not at all, read only if nobody else could have.

PkiError             what is wrong with a key, a certificate or a bundle, where, and what to do
├── MissingError     there is no such file
└── UnreadableError  the system does not let it be read now: what is in it is not known
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final, Self

MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes read of one file. The CA bundle of a distribution has about 220 KiB."""


Stamp = tuple[int, int, int] | None
"""Inode, time of the last change in nanoseconds, and size of a file."""


class PkiError(ValueError):
    """A key, certificate or bundle cannot be used. The message names the path and the remedy; it holds no secret."""


class MissingError(PkiError):
    """There is no such file."""


class UnreadableError(PkiError):
    """The system does not let the file be read now, for want of a disk, a right or a descriptor."""


def write_private(path: Path, data: bytes) -> None:
    """Write `data` at `path` with mode 0600, atomically and durably. Raises OSError."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Write `data` at `path` with mode 0644, atomically and durably. Raises OSError."""
    _write(path, data, 0o644)


def read_private(path: Path, what: str = "key") -> bytes:
    """The content of a file that holds a secret, or PkiError when it is missing or others may read it.

    The check and the read are done on one open file, so that nobody can swap it in between.
    """
    with _open(path, what) as descriptor:
        check_private(descriptor.stat(), path, what)
        return descriptor.read()


def read_public(path: Path, what: str = "certificate") -> bytes:
    """The content of a file that holds no secret, or PkiError when it is missing or cannot be read."""
    with _open(path, what) as descriptor:
        return descriptor.read()


def check_private(status: os.stat_result, path: Path, what: str = "key") -> None:
    """Raise PkiError unless only the owner may read the file, or it is root's and of mode 0640 or less.

    The second is how service managers and Kubernetes hand a secret to a service's group. The owner must be this
    process's user or root; root itself may look at anyone's (`check` is often run as root for a service).
    """
    mode = stat.S_IMODE(status.st_mode)
    user = os.geteuid()
    if status.st_uid not in {0, user} and user != 0:
        msg = f"{path}: the {what} file belongs to another user (uid {status.st_uid}): chown it to this one"
        raise PkiError(msg)
    allowed = 0o640 if status.st_uid == 0 else 0o600
    # An execute bit opens nothing; what counts is who may read or write.
    if mode & 0o066 & ~allowed:
        msg = f"{path}: others may read the {what} file (mode {mode:04o}): chmod 600 it"
        raise PkiError(msg)


class _Descriptor:
    """An open file that closes itself, with its status."""

    def __init__(self, number: int, path: Path, what: str) -> None:
        self._number = number
        self._path = path
        self._what = what

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def stat(self) -> os.stat_result:
        return os.fstat(self._number)

    def read(self) -> bytes:
        if not stat.S_ISREG(self.stat().st_mode):
            msg = f"{self._path}: the {self._what} file is not a regular file"
            raise PkiError(msg)
        with os.fdopen(os.dup(self._number), "rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            msg = f"{self._path}: the {self._what} file has more than {MAX_FILE} bytes"
            raise PkiError(msg)
        return data


def _open(path: Path, what: str) -> _Descriptor:
    try:
        # Non-blocking, or else a FIFO in the way would hang the program.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        msg = f"{path}: the {what} file is missing"
        raise MissingError(msg) from None
    except OSError as error:
        msg = f"{path}: the {what} file cannot be read: {error.strerror}"
        raise UnreadableError(msg) from error
    return _Descriptor(number, path, what)


def _write(path: Path, data: bytes, mode: int) -> None:
    """All or nothing: a new file beside the old one, on the disk, then renamed over it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def stamp(path: Path) -> Stamp:
    """Which file it is, and since when; None where there is none. Files of ours are replaced, never written into."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
