"""Images under the names that the project's files ask for, of Debian's packages: no registry is asked.

Python's is a small Debian 13, whose Python is 3.13. Prometheus' and VictoriaMetrics' hold Debian's program where the
original has it, a busybox for what else is called in there, and nothing more.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from tests.deploy.docker_machine import DockerMachine
from tests.deploy.host import ROOT, make_root

SUITE: Final = "trixie"
PACKAGES: Final = "python3,python3-venv,python3-pip,libpython3-dev,ca-certificates,openssl,netbase,tzdata"
NOBODY: Final = 65534
_PATH: Final = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_TRUSTED: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP: Final = re.compile(r"^(?:global|install|:env:)\.(index-url|extra-index-url|trusted-host)='(.*)'$", re.MULTILINE)


class StandIn(NamedTuple):
    """An image of one program of Debian's."""

    service: str
    package: str
    program: str
    place: str
    folder: str
    owner: int
    changes: list[str]


STAND_INS: Final = [
    StandIn(
        "prometheus", "prometheus", "usr/bin/prometheus", "bin/prometheus", "prometheus", NOBODY,
        ["USER nobody", "WORKDIR /prometheus", 'ENTRYPOINT ["/bin/prometheus"]'],
    ),
    StandIn(
        "victoria-metrics", "victoria-metrics", "usr/bin/victoria-metrics", "victoria-metrics-prod", "storage", 0,
        ["EXPOSE 8428", 'ENTRYPOINT ["/victoria-metrics-prod"]'],
    ),
]  # fmt: skip


def python_image() -> str:
    """What deploy/Dockerfile stands on."""
    (name,) = re.findall(r"^ARG PYTHON=(\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    return str(name)


def image_of(service: str) -> str:
    """What docker-compose.yml asks for."""
    return str(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["image"])


def make_python(folder: Path) -> Path:
    """Files of an image with Python, pip, openssl, and what this machine's pip knows of package indexes and CAs."""
    root = make_root(folder, SUITE, PACKAGES, "python")
    for name, program in (("python", "python3"), ("pip", "pip3")):
        link = root / "usr" / "local" / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/bin/{program}")
    certificates = Path(os.environ.get("PIP_CERT") or _TRUSTED)
    if certificates.exists():
        shutil.copyfile(certificates, root / _TRUSTED.relative_to("/"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    said = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    lines = [f"{key} = {value}" for key, value in _PIP.findall(said)]
    (root / "etc" / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    return root


def import_images(machine: DockerMachine, folder: Path) -> None:
    """All that the project's files ask for, into the machine's engine."""
    python = make_python(folder)
    for one in STAND_INS:
        root = make_stand_in(folder, python, one)
        machine.import_image(image_of(one.service), root, [_PATH, *one.changes])
    machine.import_image(python_image(), python, [_PATH, 'CMD ["python3"]'])


def make_stand_in(folder: Path, python: Path, what: StandIn) -> Path:
    """Files of an image of one program, its libraries and a busybox, made once."""
    root = folder / f"{what.package}-{SUITE}"
    if root.exists():
        return root
    unfinished = folder / f"unfinished-{what.package}"
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("bin", "etc", "tmp", what.folder):
        (unfinished / name).mkdir(parents=True)
    (unfinished / "tmp").chmod(0o1777)
    os.chown(unfinished / what.folder, what.owner, what.owner)
    libraries = _unpack(python, what)
    unpacked = python / "tmp" / "packages" / "unpacked"
    shutil.copy(unpacked / what.program, unfinished / what.place)
    shutil.copy(unpacked / "usr" / "bin" / "busybox", unfinished / "bin" / "busybox")
    for name in ("sh", "wget", "cat", "ls", "id"):
        (unfinished / "bin" / name).symlink_to("busybox")
    for library in libraries:
        (unfinished / library).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(python / library, unfinished / library)
    (unfinished / "etc" / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nnobody:x:{NOBODY}:{NOBODY}::/:/bin/false\n")
    (unfinished / "etc" / "group").write_text(f"root:x:0:\nnobody:x:{NOBODY}:\n")
    shutil.rmtree(unpacked.parent)
    unfinished.rename(root)
    return root


_UNPACK: Final = """
set -eu
cd /tmp/packages
apt-get -qq -o APT::Sandbox::User=root download "$1" busybox-static
for package in *.deb; do dpkg-deb --extract "$package" unpacked; done
ldd "unpacked/$2"
"""


def _unpack(python: Path, what: StandIn) -> list[str]:
    """The package, fetched and unpacked by the release's own tools, and not installed; what its program would load."""
    place = python / "tmp" / "packages"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    argv = ["chroot", str(python), "sh", "-c", _UNPACK, "sh", what.package, what.program]
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    libraries = re.findall(r"/(\S+) \(0x", said)
    assert libraries, said
    return libraries
