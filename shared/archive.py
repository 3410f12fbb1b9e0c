"""An archive of what diagnosis needs: written whole or not at all, readable by its owner only."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from shared.exits import CommandError, ExitCode


def write_archive(path: Path, folder: str, entries: Mapping[str, bytes], now: float | None = None) -> None:
    """A new file at `path` (tar, gzip, 0600) with `entries` by name in one folder. CommandError where there is one
    already; OSError where it cannot be written, and nothing is left then."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise CommandError(
            ExitCode.REFUSED, f"{path} is there already", "Name another file: --output.", "file-exists"
        ) from error
    try:
        with os.fdopen(number, "wb") as file:
            write_tar(file, folder, entries, now)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_tar(file: BinaryIO, folder: str, entries: Mapping[str, bytes], now: float | None = None) -> None:
    """The archive's bytes."""
    stamp = int(time.time() if now is None else now)
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), stamp, 0o600
            archive.addfile(entry, io.BytesIO(content))
