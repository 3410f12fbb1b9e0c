"""docker-compose.yml and the image under a real Docker, by the commands of docs/install.md: `make try-docker`, as root.

A machine is made of Debian's packages, with an engine and namespaces of its own; images come from Debian's packages
too, under the names that the files ask for. The containers' logs are read line by line: no warning in them may be one
that does not belong to what was just done.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.deploy import docker_image as image
from tests.deploy import docker_scenario as scenario
from tests.deploy.docker_machine import OTHERS, PACKAGES, DockerMachine
from tests.deploy.docker_site import Site
from tests.deploy.docker_stand_ins import import_images
from tests.deploy.host import TrialError, alone, make_root

FOLDER: Final = Path("/var/tmp/qanat-docker-trial")
NEEDED: Final = {
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}

NO_RELAY: Final = r'"event":"(tunnel lost|no tunnel)".*"code":"(connection-(refused|lost)|timeout|dns-failure)"'
"""What a connector says while its relay is away, and with it its container's address and name."""

RETRIES: Final = "Failed to send batch, retrying"
"""What Prometheus says when it is not answered by a 2xx."""

NO_TARGET: Final = (
    r'"event":"(cannot connect to the target|the target.s probe failed|a target fails its probe'
    r'|pushes keep failing at a target)"'
)
"""What both of ours say while the target is away."""

TOLD_TO_END: Final = "Received an OS signal, exiting gracefully"
"""What Prometheus says then. Compose 2 recreates it together with the relay that it depends on."""

AWAY: Final = f"{NO_RELAY}|{RETRIES}|{TOLD_TO_END}"

Step = Callable[[Site], str]
PARTS: Final[dict[str, list[tuple[Step, str]]]] = {
    "compose": [
        (scenario.up, ""), (scenario.samples, ""), (scenario.push_by_hand, ""), (scenario.isolation, ""),
        (scenario.hardened, ""), (scenario.kill, f"{AWAY}|{NO_TARGET}"), (scenario.kill_by_wish, RETRIES),
        (scenario.drain, AWAY), (scenario.other_port, AWAY), (scenario.upgrade, AWAY),
        # Prometheus and the connector are told to end together: its last batch may come to a relay without connectors.
        (scenario.uninstall, f"{TOLD_TO_END}|{RETRIES}"),
    ],
    "image": [
        (image.build, ""), (image.start_relay, ""), (image.join, ""), (image.least, ""), (image.kill, NO_RELAY),
        (image.drain, NO_RELAY), (image.restart_engine, NO_RELAY), (image.upgrade, NO_RELAY),
        (image.pure, NO_RELAY), (image.uninstall, NO_RELAY),
    ],
}  # fmt: skip
"""Beside each step: the warnings and errors that belong to it."""

FIRST: Final = {"up", "samples", "push_by_hand", "build", "start_relay", "join"}
"""What all others of their part stand on."""


def run(site: Site, parts: Sequence[str], only: Sequence[str]) -> None:
    """Every step of these parts, or the first ones and `only` these."""
    for part in parts:
        for step, expected in PARTS[part]:
            name = step.__name__
            if only and name not in {*FIRST, *only}:
                continue
            _try(site, step, f"{part}: {name.replace('_', ' ')}", expected)


def _try(site: Site, step: Step, name: str, expected: str) -> None:
    started = time.monotonic()
    try:
        found = step(site)
        site.read_logs(name, expected)
    except (TrialError, AssertionError, subprocess.SubprocessError):
        sys.stderr.write(f"FAILED: {name}\n")
        site.heard += [(name, line) for line in site.logs.take()]
        lines = [str(line) for _, line in site.heard if not line.is_access]
        sys.stderr.write("".join(f"    {line}\n" for line in lines[-60:]))
        raise
    sys.stdout.write(f"{time.monotonic() - started:5.1f} s  {name}: {found}\n")
    sys.stdout.flush()


def complain() -> str:
    """What is missing, in a sentence."""
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        return f"the trial needs {' and '.join(missing)}: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "the trial makes a machine with namespaces and mounts of its own: run it as root"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where roots, images and the machine are kept")
    parser.add_argument("--suite", default="bookworm", choices=list(PACKAGES), help="Debian's release, and so Docker's")
    parser.add_argument("--part", choices=list(PARTS), help="this part alone")
    parser.add_argument("--only", nargs="*", default=[], help="steps to be tried after the first ones of their part")
    arguments = parser.parse_args()
    if complaint := complain():
        sys.exit(complaint)
    folder: Path = arguments.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # an index of pip's may have a password
    with alone(folder, folder / "lock"):
        root = make_root(folder, arguments.suite, f"{PACKAGES[arguments.suite]},{OTHERS}")
        with DockerMachine(folder / "machine", root) as machine:
            import_images(machine, folder)
            site = Site(machine)
            try:
                run(site, [arguments.part] if arguments.part else list(PARTS), arguments.only)
            finally:
                site.logs.close()
                kept = folder / f"containers-{arguments.suite}.txt"
                kept.write_text("".join(f"{step}: {line}\n" for step, line in site.heard))
                sys.stdout.write(f"the containers' logs are in {kept}, the engine's in {machine.log}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
