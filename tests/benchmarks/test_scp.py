"""A copy by scp counts only when it is the file."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from benchmarks.programs import BenchmarkError
from benchmarks.scenarios.scp import check_copy, write_random


def test_the_file_has_its_size_and_does_not_compress(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_random(path, 1_500_001)
    content = path.read_bytes()
    assert len(content) == 1_500_001
    assert len(zlib.compress(content)) > len(content)


def test_an_exact_copy_is_removed(tmp_path: Path) -> None:
    source, copy = tmp_path / "file", tmp_path / "copy"
    write_random(source, 1000)
    copy.write_bytes(source.read_bytes())
    check_copy(source, copy)
    assert source.exists()
    assert not copy.exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_another_one_is_no_result(tmp_path: Path, damage) -> None:
    source, copy = tmp_path / "file", tmp_path / "copy"
    write_random(source, 1000)
    copy.write_bytes(damage(source.read_bytes()))
    with pytest.raises(BenchmarkError, match="the copy is not the file"):
        check_copy(source, copy)
    assert not copy.exists()
