"""Files of secrets: whole or not at all, and refused when others could have read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shared.pki import files
from shared.pki.files import PkiError

PATH = Path("relay.key")


def status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 10, 0, 0, 0))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_what_only_its_owner_may_read(mode, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files.check_private(status(mode, 1000), PATH)


@pytest.mark.parametrize("mode", [0o640, 0o440, 0o600, 0o400])
def test_what_root_hands_to_a_services_group(mode, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files.check_private(status(mode, 0), PATH)


@pytest.mark.parametrize(
    ("mode", "owner"),
    [(0o644, 1000), (0o640, 1000), (0o604, 1000), (0o620, 1000), (0o602, 1000), (0o644, 0), (0o660, 0)],
)
def test_what_others_may_read_or_write(mode, owner, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PkiError, match=r"relay\.key: others may read the key file \(mode 0\d{3}\): chmod 600"):
        files.check_private(status(mode, owner), PATH)


def test_what_belongs_to_somebody_else(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PkiError, match=r"belongs to another user \(uid 1001\)"):
        files.check_private(status(0o600, 1001), PATH)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    files.check_private(status(0o600, 1001), PATH)


def test_written_private_whatever_the_umask(tmp_path):
    path = tmp_path / "a.key"
    old = os.umask(0)
    try:
        files.write_private(path, b"secret")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.read_private(path) == b"secret"


def test_written_public_whatever_the_umask(tmp_path):
    path = tmp_path / "a.pem"
    old = os.umask(0o077)
    try:
        files.write_public(path, b"certificate")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert files.read_public(path) == b"certificate"


def test_a_file_that_was_too_open_is_replaced_by_a_private_one(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(b"old")
    path.chmod(0o666)
    files.write_private(path, b"new")
    assert files.read_private(path) == b"new"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.key"
    files.write_private(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_is_replaced_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    path = tmp_path / "a.key"
    path.symlink_to(other)
    files.write_private(path, b"secret")
    assert other.read_bytes() == b"untouched"
    assert not path.is_symlink()


def test_reading_follows_the_links_that_kubernetes_makes(tmp_path):
    real = tmp_path / "..data"
    real.mkdir()
    files.write_private(real / "a.key", b"secret")
    (tmp_path / "a.key").symlink_to("..data/a.key")
    assert files.read_private(tmp_path / "a.key") == b"secret"


def test_a_missing_file(tmp_path):
    with pytest.raises(PkiError, match=r"a\.key: the token file is missing"):
        files.read_private(tmp_path / "a.key", "token")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(PkiError, match="not a regular file"):
            files.read_public(path)


def test_a_file_without_end(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(files.MAX_FILE + 1)
    with pytest.raises(PkiError, match="more than"):
        files.read_public(path)
