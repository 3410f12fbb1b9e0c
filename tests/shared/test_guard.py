"""The guard: a foreign `shared` in the way is named in a sentence, by both programs, before anything else breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shared
from shared.guard import shared_problem

ROOT = Path(shared.__file__).parents[1]


@pytest.mark.parametrize("package", ["cloud_relay", "connector_agent"])
def test_ours_is_beside_both(package):
    assert shared_problem(str(ROOT / package / "__init__.py")) is None


def test_the_one_beside_a_foreign_package_is_another(tmp_path):
    problem = shared_problem(str(tmp_path / "cloud_relay" / "__init__.py"))
    assert problem is not None
    assert str(ROOT / "shared") in problem


@pytest.mark.parametrize("content", ["", "raise RuntimeError('imported')\n"])
@pytest.mark.parametrize("package", ["cloud_relay", "connector_agent"])
def test_a_foreign_folder_in_the_way(tmp_path, package, content):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text(content)
    run = subprocess.run(
        [sys.executable, "-c", f"import {package}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"{package.replace('_', '-')}: Python finds another 'shared' at ")
    assert run.stderr.count("\n") == 1
