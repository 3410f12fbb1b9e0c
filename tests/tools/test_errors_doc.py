"""The page of errors: complete, and the one that is committed is the one that would be made."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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


CARRIERS = {"LocalFault", "RemoteFault", "BadRequest", "HeadError", "BadChunk", "DialError", "ProxyError", "fail"}


def codes_in(path: Path) -> Iterator[str]:
    """The codes that a file makes: of exceptions that carry one, and those that are looked up in the catalogue."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and name_of(node.func) in CARRIERS:
            found = node.args[0]
        elif isinstance(node, ast.Subscript) and name_of(node.value) == "FAULTS":
            found = node.slice
        else:
            continue
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.value


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def test_every_code_that_is_made_is_in_the_catalogue():
    root = Path(errors_doc.__file__).parents[1]
    packages = [root / name for name in ("shared", "cloud_relay", "connector_agent")]
    made = {code: path.name for package in packages for path in package.rglob("*.py") for code in codes_in(path)}
    assert len(made) > 50
    assert {code: name for code, name in made.items() if code not in FAULTS} == {}
