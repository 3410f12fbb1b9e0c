"""The real programs that the tests run beside ours: where they are, and what their environment needs.

`tools/peers.sh` unpacks them into `.peers/`. Tests ask for one by the fixture `peer` (in conftest.py), which leaves the
test out, loudly, when it is missing, and fails it under CI, where whatever can be unpacked is there.

How they start without touching the system: nginx with `-p FOLDER -e FILE -c FILE -g 'daemon off;'` and all its
temporary paths in the config; tinyproxy with `-d`; haproxy with `-db`; sshd by its whole path with `-D -e -f FILE`, and
not as root (it would look for a user of its own): `Popen(..., user=...)` of a system account that owns the host key.
PostgreSQL refuses to run as root too; it finds what it shares beside its programs, wherever those were unpacked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".peers"
_PROGRAM_FOLDERS: Final = ("usr/sbin", "usr/bin")
_SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_POSTGRES_FOLDER: Final = "usr/lib/postgresql/*/bin"  # one of each version


NOT_UNPACKED: Final = {
    "kubectl": "install kubectl 1.27 or newer: Debian 12's knows no components of an overlay",
    "openssl": "install openssl",
}
"""Programs that `tools/peers.sh` cannot unpack, and what to do where one is missing: a CI may be without them."""


class Peer(NamedTuple):
    """A program and the environment to start it in: `subprocess.Popen([peer.path, ...], env=peer.environment)`."""

    path: str
    environment: Mapping[str, str]


def find_peer(name: str) -> Peer | None:
    """The program from `.peers/`, else from the system, else None.

    The unpacked one comes first, so that the same version runs wherever it can. Its environment is ours without the
    machine's proxy settings.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.lower().endswith("_proxy") and key != "LD_LIBRARY_PATH"
    }
    for folder in _program_folders(FOLDER):
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return Peer(str(path), environment | _library_path())
    folders = ":".join((*_SYSTEM_FOLDERS, *map(str, Path("/").glob(_POSTGRES_FOLDER))))
    found = shutil.which(name, path=folders)
    return Peer(found, environment) if found else None


def _program_folders(root: Path) -> list[Path]:
    return [*(root / folder for folder in _PROGRAM_FOLDERS), *root.glob(_POSTGRES_FOLDER)]


def _library_path() -> dict[str, str]:
    written = FOLDER / "library-path"
    if not written.is_file():
        return {}
    # Relative to the folder, so that a checkout may be moved.
    folders = [str(FOLDER / line) for line in written.read_text().split()]
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}
