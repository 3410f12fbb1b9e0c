"""What is written to a journal is read once, whole lines only."""

from __future__ import annotations

import pytest

from chaos.journal import Reader, Writer


def test_each_record_is_read_once(tmp_path):
    path = tmp_path / "journal"
    reader = Reader(path)
    assert reader.read() == []
    writer = Writer(path)
    writer.write(event="try", id=1)
    assert reader.read() == [{"event": "try", "id": 1}]
    writer.write(event="try", id=2)
    Writer(path).write(event="try", id=3)
    assert [record["id"] for record in reader.read()] == [2, 3]
    assert reader.read() == []


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "journal"
    reader = Reader(path)
    path.write_bytes(b'{"a":1}\n{"b"')
    assert reader.read() == [{"a": 1}]
    with path.open("ab") as file:
        file.write(b":2}\n")
    assert reader.read() == [{"b": 2}]


def test_a_line_that_was_cut_off_is_left_out_where_that_may_be(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b'{"a":1}\n{"b"\n{"c":3}\n')
    assert Reader(path, strict=False).read() == [{"a": 1}, {"c": 3}]
    with pytest.raises(ValueError, match="unexpected"):
        Reader(path).read()
