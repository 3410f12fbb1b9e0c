"""The page of errors: complete, and the one that is committed is the one that would be made."""

from __future__ import annotations

from pathlib import Path

from shared.errors import BY_WIRE, FAULTS
from tools import errors_doc


def test_every_fault_has_its_row():
    page = errors_doc.render()
    assert FAULTS
    for code in FAULTS:
        assert page.count(f"| `{code}` |") == 1


def test_numbers_and_codes_are_never_shared():
    assert len(BY_WIRE) == len(FAULTS)


def test_no_status_that_makes_a_sender_drop_or_change_its_protocol():
    assert {fault.status for fault in FAULTS.values()}.isdisjoint({200, 405, 408, 415, 500, 501})


def test_the_committed_page_is_up_to_date():
    assert errors_doc.main(["--check"]) == 0


def test_a_stale_page_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(errors_doc, "PAGE", tmp_path / "errors.md")
    assert errors_doc.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert errors_doc.main([]) == 0
    assert errors_doc.main(["--check"]) == 0


def test_every_fault_is_made_somewhere():
    root = Path(errors_doc.__file__).parents[1]
    packages = [root / name for name in ("shared", "cloud_relay", "connector_agent")]
    files = [path for package in packages for path in package.rglob("*.py") if path.name != "errors.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert [fault for fault in FAULTS if f'"{fault}"' not in code] == []
