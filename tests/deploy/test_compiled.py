"""What the optional build makes C of."""

from __future__ import annotations

import ast
import runpy
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.system.programs import ROOT


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that setup.py names."""
    monkeypatch.delenv("QANAT_COMPILE", raising=False)
    nothing = SimpleNamespace(setup=lambda **given: None, Extension=None)
    monkeypatch.setitem(sys.modules, "setuptools", nothing)  # which need not be there
    build: dict[str, Any] = runpy.run_path(str(ROOT / "setup.py"))
    found: list[str] = build["modules"]()
    return found


def test_each_of_them_is_there_once(compiled: list[str]) -> None:
    assert len(compiled) == len(set(compiled))
    assert {"shared/tunnel/link.py", "shared/protocol/frames.py", "connector_agent/upstream/pool.py"} <= set(compiled)
    assert all((ROOT / path).is_file() for path in compiled)


def test_none_of_them_awaits(compiled: list[str]) -> None:
    """mypyc's `await` hands exceptions on by a form of `throw` that Python 3.12 and later warn of."""
    waiting = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    assert [path for path in compiled if any(isinstance(node, waiting) for node in _nodes(path))] == []


def _nodes(path: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse((ROOT / path).read_text())))
