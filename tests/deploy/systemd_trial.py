"""Both programs under a real systemd, by the very commands of docs/install.md: `make try-systemd`, as root.

A machine is made of Debian's packages and booted; in it the wheel is installed, the connector joins, pushes arrive,
configs change, the machine reboots, versions change, certificates are rotated, loops are blocked. The journal is read
line by line: no warning in it may be one that does not belong to what was just done.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.deploy import systemd_faults as faults
from tests.deploy import systemd_life as life
from tests.deploy import systemd_ways as ways
from tests.deploy.host import ROOT, TrialError, alone, copy_checkout, make_root
from tests.deploy.machine import PACKAGES, Machine
from tests.deploy.systemd_site import VERSIONS, Site

FOLDER: Final = Path("/var/tmp/qanat-systemd-trial")
NO_RELAY: Final = r"connector\.tunnels: no tunnel .* code=connection-(refused|lost)"
"""What a connector says while no relay runs."""

BREAKS: Final = f"{NO_RELAY}|tunnel ended|tunnel lost"

Step = Callable[[Site], str]
STEPS: Final[list[tuple[Step, str]]] = [
    (life.install, ""), (life.start_relay, ""), (life.join, "exposes nothing"), (life.push, ""),
    (life.refused_reload, "config not taken|Reload failed|systemd: .*status=5|<3> cloud-relay: "),
    (life.reboot, NO_RELAY), (life.drain, NO_RELAY), (life.upgrade, ""), (life.roll_back, NO_RELAY),
    (faults.rotate, "a step of the CA's roll-over|removed a key of a CA that counts no more"),
    (faults.kill, f"{BREAKS}|status=9/KILL|Failed with result 'signal'"),
    (faults.watchdog, f"{BREAKS}|[Ww]atchdog|status=6/ABRT"), (faults.crowded_loop, NO_RELAY),
    (faults.bad_config, "error: the config has a problem|nonsense|exit-code|status=3|Failed to start"),
    (ways.second_connector, "exposes nothing"), (ways.secrets, f"exposes nothing|{NO_RELAY}"),
    (ways.low_port, NO_RELAY), (ways.socket, NO_RELAY), (ways.access_log, NO_RELAY), (ways.workers, NO_RELAY),
    (life.reexec, ""), (life.uninstall, NO_RELAY),
]  # fmt: skip
"""Beside each step: the warnings and errors that belong to it."""

FIRST: Final = {"install", "start_relay", "join", "push"}
"""What all others stand on."""


def run(site: Site, only: Sequence[str] = ()) -> None:
    """Every step, or the first ones and `only` these."""
    for step, expected in STEPS:
        if only and step.__name__ not in {*FIRST, *only}:
            continue
        started = time.monotonic()
        name = step.__name__.replace("_", " ")
        try:
            found = step(site)
            site.read_journal(name, expected)
        except (TrialError, AssertionError, subprocess.SubprocessError):
            sys.stderr.write(f"FAILED: {name}\n")
            lines = [site.line(one) for one in site.machine.journal()]
            sys.stderr.write("".join(f"    {line}\n" for line in [one for one in lines if ": {" not in one][-60:]))
            raise
        sys.stdout.write(f"{time.monotonic() - started:5.1f} s  {name}: {found}\n")
        sys.stdout.flush()


def build_wheels(folder: Path, python: str) -> Path:
    """Wheels of both versions, which differ in their number alone, and of all that they need, for `python`."""
    wheels = folder / f"wheels-{python}"
    wheels.mkdir(exist_ok=True)
    for old in wheels.glob("qanat-*"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for version in VERSIONS:
        source = folder / "source"
        copy_checkout(source)
        project = source / "pyproject.toml"
        project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1))
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)], check=True)
    subprocess.run(
        [*pip, "download", "--constraint", str(ROOT / "constraints.txt"), "--only-binary", ":all:",
         "--python-version", python, "--dest", str(wheels), str(wheels / f"qanat-{VERSIONS[0]}-py3-none-any.whl")],
        check=True,
    )  # fmt: skip
    return wheels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where roots, wheels and the machine are kept")
    parser.add_argument("--suite", default="bookworm", help="Debian's release")
    parser.add_argument("--only", nargs="*", default=[], help="steps to be tried after a first push")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, folder / "lock"):
        root = make_root(folder, arguments.suite, PACKAGES)
        python = next(path.name.removeprefix("python") for path in (root / "usr" / "bin").glob("python3.[0-9]*[0-9]"))
        wheels = build_wheels(folder, python)
        with Machine(folder / "machine", root) as machine:
            site = Site(machine, wheels)
            try:
                run(site, arguments.only)
            finally:
                journal = folder / f"journal-{arguments.suite}.txt"
                journal.write_text("".join(f"{one['step']}: {one['line']}\n" for one in site.said))
                sys.stdout.write(f"the journal is in {journal}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
