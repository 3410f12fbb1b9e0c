"""Looks at what is about to be handed out: the wheel, and the list of what comes along with it.

python tools/dist.py wheel WHEEL ENVIRONMENT    what is in it, and whether both commands run where it is installed
python tools/dist.py sbom SBOM CONSTRAINTS      whether it names the program, and all that it needs as it is pinned
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cloud_relay", "connector_agent", "shared")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def expected_files() -> set[str]:
    """Every module of the three packages, and what is installed beside the program, as a wheel holds them."""
    modules = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    beside = PYPROJECT["tool"]["setuptools"].get("data-files", {})
    return modules | {
        f"{PROJECT['name']}-{PROJECT['version']}.data/data/{folder}/{path.name}"
        for folder, patterns in beside.items()
        for pattern in patterns
        for path in ROOT.glob(pattern)
    }


def wheel_faults(names: Iterable[str], expected: set[str]) -> list[str]:
    """What is wrong with a wheel that holds these files. `expected`: what it must hold beside its own description."""
    found = set(names)
    information = f"{PROJECT['name']}-{PROJECT['version']}.dist-info"
    wanted = expected | {f"{name}/py.typed" for name in PACKAGES}
    wanted |= {f"{information}/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")}
    allowed = wanted | {f"{information}/{name}" for name in ("RECORD", "WHEEL", "top_level.txt")}
    return [f"{name} is missing" for name in sorted(wanted - found)] + [
        f"{name} does not belong there" for name in sorted(found - allowed)
    ]


def command_faults(environment: Path) -> list[str]:
    """What the installed commands say, where nothing and where something called `shared` lies around."""
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for program in PROJECT["scripts"]:
            argv = [environment.absolute() / "bin" / program, "version"]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
            if (done.stdout, done.stderr) != (f"{program} {PROJECT['version']}\n", ""):
                faults.append(f"{program} version says: {done.stdout}{done.stderr}")
        (Path(folder) / "shared.py").touch()
        for package in PACKAGES[:2]:
            argv = [environment.absolute() / "bin" / "python", "-m", package, "version"]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode == 0 or "Python finds another 'shared'" not in done.stderr:
                faults.append(f"{package} does not say what shadows it: {done.stderr}")
    return faults


def sbom_faults(document: dict[str, Any], constraints: str) -> list[str]:
    """What is wrong with a CycloneDX document: its subject, its parts, and their versions."""
    subject = document.get("metadata", {}).get("component", {})
    faults = []
    if (subject.get("name"), subject.get("version")) != (PROJECT["name"], PROJECT["version"]):
        faults.append(f"it is about {subject.get('name')} {subject.get('version')}")
    parts = {_folded(part["name"]): part["version"] for part in document.get("components", [])}
    parts.pop(PROJECT["name"], None)
    pins = {_folded(name): version for name, _, version in (line.partition("==") for line in constraints.split())}
    needed = {_folded(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in PROJECT["dependencies"]}
    faults += [f"{name} is missing" for name in sorted(needed - parts.keys())]
    return faults + [
        f"{name} is {version}, and {pins.get(name, 'nothing')} is pinned"
        for name, version in sorted(parts.items())
        if pins.get(name) != version
    ]


def _folded(name: str) -> str:
    """PEP 503's spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    """0 if all is well, 1 with a line for each fault, 2 for wrong usage."""
    match arguments:
        case ["wheel", wheel, environment]:
            names = zipfile.ZipFile(wheel).namelist()
            faults = wheel_faults(names, expected_files()) + command_faults(Path(environment))
            good = f"{Path(wheel).name}: {len(names)} files, both commands run"
        case ["sbom", sbom, constraints]:
            document = json.loads(Path(sbom).read_text(encoding="utf-8"))
            faults = sbom_faults(document, Path(constraints).read_text(encoding="utf-8"))
            good = f"{Path(sbom).name}: {len(document['components'])} packages, all as they are pinned"
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print("\n".join(faults) if faults else good)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
