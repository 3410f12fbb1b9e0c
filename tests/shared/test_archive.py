"""An archive: its owner's alone, and whole or not at all."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from shared import archive
from shared.exits import CommandError, ExitCode


def test_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    archive.write_archive(path, "folder", {"one.txt": b"1", "two.json": b"{}"}, now=1.7e9)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as found:
        assert found.getnames() == ["folder/one.txt", "folder/two.json"]
        assert all(entry.mode == 0o600 and entry.mtime == 1_700_000_000 for entry in found.getmembers())
        one = found.extractfile("folder/one.txt")
        assert one is not None
        assert one.read() == b"1"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for one in (path, tmp_path / "link"):
        with pytest.raises(CommandError) as caught:
            archive.write_archive(one, "folder", {})
        assert caught.value.exit_code == ExitCode.REFUSED
    assert path.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_half_an_archive_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "write_tar", fail)
    with pytest.raises(OSError, match="No space"):
        archive.write_archive(tmp_path / "a.tar.gz", "folder", {})
    assert list(tmp_path.iterdir()) == []
