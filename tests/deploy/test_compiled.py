"""What the optional build makes C of."""

from __future__ import annotations

import ast
import runpy
import sys
import sysconfig
from types import SimpleNamespace
from typing import Any

import pytest

from tests.system.programs import ROOT


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py defines, nothing built."""
    monkeypatch.delenv("QANAT_COMPILE", raising=False)
    nothing = SimpleNamespace(setup=lambda **given: None, Extension=None)
    monkeypatch.setitem(sys.modules, "setuptools", nothing)  # which need not be there
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.fixture
def compiled(build: dict[str, Any]) -> list[str]:
    """The modules that it makes C of."""
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


def test_a_machine_without_a_compiler_is_told_so(build: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-cc -pthread")
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    with pytest.raises(SystemExit, match=r"needs a C compiler, and there is no no-such-cc.*pure Python"):
        build["extensions"]()
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nonexistent")
    with pytest.raises(SystemExit, match=r"no Python\.h"):
        build["extensions"]()


def test_metadata_need_no_compiler(build: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-cc")
    monkeypatch.setattr(sys, "argv", ["setup.py", "egg_info"])
    assert build["extensions"]() == []
