"""A config that one process reads for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import ConfigError, ConfigModel, Edition, read_config


class Model(ConfigModel):
    """A config."""

    a: str = ""
    b: str = ""


def write(folder: Path) -> Path:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "b.yaml").write_text("b: ünf")
    path = folder / "main.yaml"
    path.write_text("a: one\ninclude: [conf.d/*.yaml]")
    return path


def test_another_process_reads_what_was_read_whatever_the_files_hold_by_then(tmp_path: Path) -> None:
    path = write(tmp_path)
    first = read_config(path, Model)
    path.write_text("a: two")
    (tmp_path / "conf.d" / "b.yaml").unlink()
    (tmp_path / "conf.d" / "c.yaml").write_text("c: unknown")
    passed = Edition.from_bytes(first.edition.to_bytes())
    second = read_config(path, Model, edition=passed)
    assert second.config == first.config == Model(a="one", b="ünf")
    assert second.watched() == first.watched()
    assert passed.to_bytes() == first.edition.to_bytes()
    assert read_config(path, Model).edition.to_bytes() != passed.to_bytes()


def test_it_knows_its_files_and_no_others(tmp_path: Path) -> None:
    edition = Edition.from_bytes(Edition().to_bytes())
    with pytest.raises(ConfigError, match="was not there when the config was read"):
        read_config(write(tmp_path), Model, edition=edition)


def test_nobody_sees_what_is_in_it(tmp_path: Path) -> None:
    loaded = read_config(write(tmp_path), Model)
    assert repr(loaded.edition) == "<Edition of 2 files>"
    assert "edition" not in repr(loaded)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"files": {}}', b'{"files": {"a": 1}, "found": {}}', b"\xff"])
def test_what_is_no_edition_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — of the parser's or ours
        Edition.from_bytes(data)
