"""Prechecks of the machine under either program: its state directory, its disk, its descriptors, its clock."""

from __future__ import annotations

import ctypes
import os
import secrets
from pathlib import Path
from typing import Final

from shared.prechecks import Checklist, Figure

MIB: Final = 1 << 20

LEAST_DISK: Final = 20 * MIB
"""Bytes free below which the next certificate or event may not find room."""

LITTLE_DISK: Final = 200 * MIB

FULL: Final = 0.8
"""The part of the descriptors in use from which on it is time to do something."""

_MODES_NONE: Final = 256
"""Bytes of a zeroed struct timex (adjtimex(2)) and to spare: modes 0 asks and sets nothing."""

_TIME_ERROR: Final = 5
"""The kernel's word for a clock that nobody keeps in time."""


def check_state_dir(checks: Checklist, folder: Path) -> None:
    """Whether a file can be made there, and how much room is left."""
    if not folder.exists():
        checks.skipped(f"{folder} is not there yet: the first start makes it", "state", "disk")
        return
    probe = folder / f".precheck.{secrets.token_hex(4)}"
    try:
        number = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(number, b"precheck")
            os.fsync(number)
        finally:
            os.close(number)
            probe.unlink(missing_ok=True)
    except OSError as error:
        checks.failed("state", f"{folder} cannot be written: {error.strerror or error}",
                      "Give the folder to the program's user (chown), mount it writable, or free some space.",
                      code="state-unusable")  # fmt: skip
    else:
        checks.ok("state", f"{folder} can be written")
    _check_disk(checks, folder)


def _check_disk(checks: Checklist, folder: Path) -> None:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    figure, told = Figure(free / MIB, "MiB"), f"free where {folder} is"
    remedy = "Free some space, or put state_dir on a larger disk: renewals and events are written there."
    if found.f_files and not found.f_favail:
        checks.failed("disk", "no inode is free", remedy, figure)
    elif free < LEAST_DISK:
        checks.failed("disk", told, remedy, figure)
    elif free < LITTLE_DISK:
        checks.warning("disk", told, remedy, figure)
    else:
        checks.ok("disk", told, figure)


def check_files(checks: Checklist, limit: int | None, wanted: int, in_use: int | None) -> None:
    """Whether so many files can be open as the config allows connections. `limit` None: any number."""
    figure = None if limit is None else Figure(limit, "files")
    remedy = f"Raise the limit (LimitNOFILE={wanted} in the service's unit, ulimits of a container), or lower limits."
    if limit is not None and in_use is not None and in_use > limit * FULL:
        checks.failed("files", f"{in_use:,} are open already", remedy, figure, code="files-exhausted")
    elif limit is not None and limit < wanted:
        checks.warning("files", f"may be open at once; the config allows connections for {wanted:,}", remedy, figure,
                       code="few-files")  # fmt: skip
    else:
        checks.ok("files", f"may be open at once, {wanted:,} are enough for all connections that the config allows"
                  + ("" if in_use is None else f"; {in_use:,} are"), figure)  # fmt: skip


def check_kernel_clock(checks: Checklist) -> None:
    """Whether a time server keeps the clock, as far as the kernel knows."""
    state = _clock_state()
    if state is None:
        checks.skipped("the kernel does not say whether a time server keeps it", "clock")
    elif state == _TIME_ERROR:
        checks.warning("clock", "no time server keeps it, as far as the kernel knows",
                       "Start chrony, ntpd or systemd-timesyncd; where the hypervisor keeps the clock, all is well.",
                       code="clock-unsynchronised")  # fmt: skip
    else:
        checks.ok("clock", "kept by a time server")


def _clock_state() -> int | None:
    """adjtimex(2)'s answer; None where it cannot be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_MODES_NONE))
    except (OSError, AttributeError):
        return None
    return state if state >= 0 else None
