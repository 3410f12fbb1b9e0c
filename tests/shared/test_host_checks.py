"""The machine under a program: what is too little, and what cannot be written."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared import host_checks
from shared.host_checks import MIB, check_files, check_kernel_clock, check_state_dir
from shared.prechecks import Checklist, Precheck


def about(checks: Checklist, check: str) -> Precheck:
    (row,) = [row for row in checks.rows if row.check == check]
    return row


def test_a_folder_that_can_be_written(tmp_path: Path) -> None:
    checks = Checklist("x")
    check_state_dir(checks, tmp_path)
    assert about(checks, "state").result == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written() -> None:
    checks = Checklist("x")
    check_state_dir(checks, Path("/proc/self"))  # not even by root
    assert about(checks, "state").result == "failed"
    assert about(checks, "state").remedy


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    checks = Checklist("x")
    check_state_dir(checks, tmp_path / "later")
    assert {row.result.value for row in checks.rows} == {"skipped"}


@pytest.mark.parametrize(
    ("free", "inodes", "result"), [(10 * MIB, 9, "failed"), (100 * MIB, 9, "warning"), (1 << 40, 0, "failed")]
)
def test_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, result: str
) -> None:
    found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=1000, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _path: found)
    checks = Checklist("x")
    check_state_dir(checks, tmp_path)
    disk = about(checks, "disk")
    assert disk.result == result
    assert disk.figure is not None
    assert disk.figure.unit == "MiB"


@pytest.mark.parametrize(
    ("limit", "wanted", "in_use", "result"),
    [(None, 10**6, 5, "ok"), (1000, 900, 5, "ok"), (1000, 1001, 5, "warning"), (1000, 900, 801, "failed"),
     (1000, 900, None, "ok")],
)  # fmt: skip
def test_descriptors(limit: int | None, wanted: int, in_use: int | None, result: str) -> None:
    checks = Checklist("x")
    check_files(checks, limit, wanted, in_use)
    row = about(checks, "files")
    assert row.result == result
    if result != "ok":
        assert f"LimitNOFILE={wanted}" in row.remedy


@pytest.mark.parametrize(("state", "result"), [(0, "ok"), (5, "warning"), (None, "skipped")])
def test_the_kernels_clock(monkeypatch: pytest.MonkeyPatch, state: int | None, result: str) -> None:
    monkeypatch.setattr(host_checks, "_clock_state", lambda: state)
    checks = Checklist("x")
    check_kernel_clock(checks)
    assert about(checks, "clock").result == result


def test_the_kernel_can_be_asked() -> None:
    assert host_checks._clock_state() in (None, 0, 1, 2, 3, 4, 5)
