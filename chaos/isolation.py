"""What keeps a session apart from the machine: mounts of its own, and control groups below the one that it runs in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_CGROUPS: Final = Path("/sys/fs/cgroup")
_is_isolated = False


def isolate_mounts() -> None:
    """Give this process, and all that it starts, a mount namespace of its own: what is mounted goes with them.

    Raises:
        OSError: not allowed.
    """
    global _is_isolated  # a process is isolated once and for all
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, capture_output=True, timeout=10)
    _is_isolated = True


def why_no_disks() -> str:
    """Why nothing can be mounted here, "" if it can."""
    return "" if os.geteuid() == 0 else "needs root for a file system in memory"


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    """A file system of so many MiB at `folder`, in memory; without mounts of our own, just the folder."""
    folder.mkdir()
    if not _is_isolated:
        yield
        return
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)],
        check=True, capture_output=True, timeout=10,
    )  # fmt: skip
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True, timeout=10)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte more can be written to the file system of `folder`."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(512))
        yield
    finally:
        ballast.unlink()


class MemoryGroup:
    """A control group below our own that bounds the memory of one process. Version 1 and 2 of the interface."""

    def __init__(self, name: str) -> None:
        self._folder = _own_group() / name
        self._is_old = (self._folder.parent / "memory.limit_in_bytes").exists()
        self._folder.mkdir(exist_ok=True)

    @property
    def out_of_memory(self) -> int:
        """How often the kernel had to kill."""
        file = "memory.oom_control" if self._is_old else "memory.events"
        lines = (self._folder / file).read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def hold(self, pid: int, limit: int) -> None:
        """The process may use `limit` bytes from now on, what it has already among them."""
        self._write("memory.limit_in_bytes" if self._is_old else "memory.max", limit)
        self._write("cgroup.procs", pid)

    def release(self, pid: int) -> None:
        """The process, if it still is one, is as free as we are; the group is gone."""
        with contextlib.suppress(ProcessLookupError):
            (self._folder.parent / "cgroup.procs").write_text(str(pid))
        self._folder.rmdir()

    def _write(self, file: str, value: int) -> None:
        (self._folder / file).write_text(str(value))


def why_no_memory_groups() -> str:
    """Why memory cannot be bounded here, "" if it can."""
    try:
        group = _own_group()
        (group / "qanat-chaos-trial").mkdir()
        (group / "qanat-chaos-trial").rmdir()
    except OSError as error:
        return f"needs a control group for memory: {error}"
    return ""


def _own_group() -> Path:
    """Where our own memory group is mounted. FileNotFoundError if memory has none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",") == ["memory"]:
            return _CGROUPS / "memory" / path.lstrip("/")
        if not controllers and (_CGROUPS / path.lstrip("/") / "memory.max").exists():
            return _CGROUPS / path.lstrip("/")
    raise FileNotFoundError("no memory controller")
