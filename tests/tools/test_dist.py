"""What `make dist sbom` would let through, and what not."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from tests.system.programs import ROOT

DIST = runpy.run_path(str(ROOT / "tools" / "dist.py"))
VERSION = DIST["PROJECT"]["version"]
PINS = "\n".join(f"{name}==1.{number}" for number, name in enumerate(("aiohttp", "PyYAML", "prometheus-client")))


def wheel() -> set[str]:
    information = f"qanat-{VERSION}.dist-info"
    return {
        *DIST["expected_files"](),
        *(f"{package}/py.typed" for package in DIST["PACKAGES"]),
        *(f"{information}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")),
        f"{information}/licenses/LICENSE",
    }


def test_a_whole_wheel_is_good():
    assert len(DIST["expected_files"]()) > 200
    assert DIST["wheel_faults"](wheel(), DIST["expected_files"]()) == []


@pytest.mark.parametrize(
    "stray", ["tests/test_cli.py", "shared/__pycache__/a.pyc", "shared/tunnel/link.so", "certs/dev/ca.key"]
)
def test_what_does_not_belong_into_a_wheel_is_named(stray):
    assert DIST["wheel_faults"]({*wheel(), stray}, DIST["expected_files"]()) == [f"{stray} does not belong there"]


@pytest.mark.parametrize("lost", ["shared/py.typed", "cloud_relay/cli.py", "shared/pki/issue.py"])
def test_what_a_wheel_lacks_is_named(lost):
    assert DIST["wheel_faults"](wheel() - {lost}, DIST["expected_files"]()) == [f"{lost} is missing"]


def sbom(**versions: str) -> dict[str, Any]:
    return {
        "metadata": {"component": {"name": "qanat", "version": VERSION}},
        "components": [{"name": name, "version": version} for name, version in versions.items()],
    }


def test_an_sbom_says_what_is_pinned(monkeypatch):
    monkeypatch.setitem(DIST["PROJECT"], "dependencies", ["aiohttp>=1", "PyYAML>=1; python_version > '3'"])
    good = {"aiohttp": "1.0", "PyYAML": "1.1", "prometheus_client": "1.2", "qanat": VERSION}
    assert DIST["sbom_faults"](sbom(**good), PINS) == []
    assert DIST["sbom_faults"](sbom(**{**good, "aiohttp": "2.0"}), PINS) == ["aiohttp is 2.0, and 1.0 is pinned"]
    assert DIST["sbom_faults"](sbom(**good, other="3"), PINS) == ["other is 3, and nothing is pinned"]
    del good["PyYAML"]
    assert DIST["sbom_faults"](sbom(**good), PINS) == ["pyyaml is missing"]
    assert DIST["sbom_faults"]({}, PINS)[0] == "it is about None None"
