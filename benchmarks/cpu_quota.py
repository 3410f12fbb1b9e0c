"""A bound on the CPU of single processes: what a machine with slower cores, and more of them, would do.

With the load generator, the target and the connector on the same two cores, a relay never needs more than one of them:
what a second worker is good for cannot be seen. Where each of its processes may take only a part of a core, it can.
It takes root and the cpu controller of cgroups, version 1 or 2.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.programs import BenchmarkError

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 10_000


def _controller() -> Path:
    """Where groups with a quota can be made.

    Raises:
        BenchmarkError: nowhere.
    """
    if (_ROOT / "cpu" / "cpu.cfs_quota_us").exists() or (_ROOT / "cpu" / "cgroup.procs").exists():
        folder = _ROOT / "cpu"
    elif "cpu" in _words(_ROOT / "cgroup.subtree_control"):
        folder = _ROOT
    else:
        raise BenchmarkError("a quota of CPU needs cgroups with the cpu controller")
    if not os.access(folder, os.W_OK):
        raise BenchmarkError(f"a quota of CPU needs root, and {folder} to be writable")
    return folder


def _words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@contextlib.contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Each of these processes gets at most `share` of a core, with all its threads, until the end.

    Raises:
        BenchmarkError: there are no cgroups here, or they may not be used.
    """
    parent = _controller()
    groups: list[tuple[Path, Path]] = []
    try:
        _enter(parent, pids, share, groups)
        yield
    finally:
        for group, before in groups:
            _remove(group, before)


def _enter(parent: Path, pids: Sequence[int], share: float, groups: list[tuple[Path, Path]]) -> None:
    """Moves each process into a group of its own; `groups` takes each as it is made, with the one before."""
    try:
        for pid in pids:
            groups.append((_make_group(parent, pid, share), _group_of(pid, parent)))
            (groups[-1][0] / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise BenchmarkError(f"a quota of CPU is not to be had: {error}") from error


def _make_group(parent: Path, pid: int, share: float) -> Path:
    group = parent / f"qanat-bench-{pid}"
    group.mkdir()
    quota = round(share * _PERIOD_US)
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    return group


def _group_of(pid: int, parent: Path) -> Path:
    """The group that the process is in now."""
    is_v1 = parent != _ROOT
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if ("cpu" in controllers.split(",")) if is_v1 else not controllers:
            return parent / path.lstrip("/")
    return parent


def _remove(group: Path, before: Path) -> None:
    for _ in range(20):
        with contextlib.suppress(OSError):
            for pid in _words(group / "cgroup.procs"):
                (before / "cgroup.procs").write_text(pid)
            group.rmdir()
            return
        time.sleep(0.05)
