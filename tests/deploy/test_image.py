"""deploy/Dockerfile fits the project that it installs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.system.programs import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_it_copies_what_is_there_and_what_the_context_holds():
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert {"shared", "cloud_relay", "connector_agent", "pyproject.toml", "setup.py", "constraints.txt"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_both_stages_stand_on_one_python_that_the_project_takes():
    (base,) = [line.removeprefix("PYTHON=") for line in instructions("ARG") if line.startswith("PYTHON=")]
    assert [line.split()[0] for line in instructions("FROM")] == ["${PYTHON}", "${PYTHON}"]
    match = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
    assert match
    assert match[1] in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {match[1]}" in PROJECT["classifiers"]


def test_labels_say_what_the_project_says():
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', DOCKERFILE))
    assert labels == {
        "title": PROJECT["name"], "description": PROJECT["description"], "version": PROJECT["version"],
        "licenses": PROJECT["license"],
    }  # fmt: skip


def test_it_ends_as_a_user_that_is_known_not_to_be_root():
    assert instructions("USER") == ["65532:65532"]
    assert DOCKERFILE.rindex("\nUSER ") > DOCKERFILE.rindex("\nRUN ")


def closure(name: str, found: set[str]) -> set[str]:
    """All that is installed with it."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", "crypto")
        )
        dependency = canonicalize_name(requirement.name)
        if wanted and dependency not in found:
            found.add(dependency)
            try:
                closure(dependency, found)
            except importlib.metadata.PackageNotFoundError:
                found.discard(dependency)  # for another Python or system
    return found


def compiler_requirements() -> list[str]:
    """What setup.py asks for beside setuptools when it compiles."""
    calls = ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    (found,) = [node.value for node in calls if isinstance(node, ast.keyword) and node.arg == "setup_requires"]
    named: list[str] = ast.literal_eval(found)
    return named


def builders() -> set[str]:
    """What the build itself needs, with all that comes with it."""
    named = PYPROJECT["build-system"]["requires"] + compiler_requirements()
    return {canonicalize_name(Requirement(text).name) for text in named} | closure("mypy", set())


def test_it_is_compiled_and_the_compiler_stays_behind() -> None:
    assert "QANAT_COMPILE=1" in instructions("ARG")
    assert "mypy" in builders()
    first, last = DOCKERFILE.split("\nFROM ")[1:]
    assert " gcc " in first
    assert "apt-get" not in last


@pytest.mark.parametrize(
    ("wanted", "has_compiler", "apt", "code"),
    [("0", False, "false", 0), ("", False, "false", 0), ("1", True, "false", 0), ("1", False, "true", 0),
     ("1", False, "false", 1)],
)  # fmt: skip
def test_a_compiler_is_fetched_where_one_is_wanted_and_a_build_without_fails(
    wanted: str, has_compiler: bool, apt: str, code: int, tmp_path: Path
) -> None:
    (installing,) = [line for line in instructions("RUN") if "apt-get install" in line]
    commands = {"apt-get": apt} | ({"gcc": "true"} if has_compiler else {})
    for name, does in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": str(tmp_path), "QANAT_COMPILE": wanted}
    done = subprocess.run(["/bin/sh", "-c", installing], env=environ, capture_output=True, text=True)
    assert done.returncode == code
    assert ("QANAT_COMPILE=0" in done.stderr) == bool(code)


def test_two_builds_give_the_same_machine_code() -> None:
    """Debug information names pip's folder for the build, which has another name each time."""
    assert "LDFLAGS=-Wl,--strip-all" in instructions("ENV")


@pytest.mark.parametrize("name", sorted(closure("qanat", set()) | builders()))
def test_every_package_in_it_is_pinned(name):
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert name in pinned
