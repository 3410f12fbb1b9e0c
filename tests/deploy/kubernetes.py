"""deploy/kubernetes as objects: read from its files, as they stand, or built by kubectl."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.peers import Peer
from tests.system.programs import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
SIDES: Final = ("relay", "connector")


def kustomization(side: str) -> dict[str, Any]:
    """What makes one side of it: "relay", "connector", "monitoring/relay"."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / side / "kustomization.yaml").read_text())
    return found


def objects(side: str) -> list[dict[str, Any]]:
    """The objects of one side, as its files hold them."""
    files = [FOLDER / side / name for name in kustomization(side)["resources"]]
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def only(side: str, kind: str) -> dict[str, Any]:
    """The one object of that kind."""
    (found,) = [one for one in objects(side) if one["kind"] == kind]
    return found


def pod(side: str) -> dict[str, Any]:
    """The specification of the side's pods."""
    found: dict[str, Any] = only(side, "StatefulSet")["spec"]["template"]["spec"]
    return found


def containers(side: str) -> Iterator[dict[str, Any]]:
    """All of the pod, those that go first included."""
    yield from pod(side).get("initContainers", [])
    yield from pod(side)["containers"]


def config(side: str) -> Path:
    """The file that becomes the side's ConfigMap."""
    (generated,) = kustomization(side)["configMapGenerator"]
    (name,) = generated["files"]
    return FOLDER / side / str(name)


def build(kubectl: Peer, folder: Path) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of a folder."""
    argv = [kubectl.path, "kustomize", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=kubectl.environment)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
