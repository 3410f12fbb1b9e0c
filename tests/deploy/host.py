"""What each trial of an installation stands on: Debian's releases as folders, a host that runs in one, and patience."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALL: Final = ROOT / "docs" / "install.md"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOLD: Final = 10_000
_BLOCK: Final = re.compile(r"<!-- trial: ([a-z-]+) -->\n```[a-z]+\n(.*?)```", re.DOTALL)


class TrialError(Exception):
    """Something is not as it should be."""


def documented() -> dict[str, str]:
    """The blocks of docs/install.md that are marked, by their marks."""
    found = dict(_BLOCK.findall(INSTALL.read_text(encoding="utf-8")))
    assert found, "docs/install.md has no block for the trial"
    return found


def make_root(folder: Path, suite: str, packages: str, name: str = "root") -> Path:
    """Debian's `suite` with `packages`, unpacked into `folder` once for each list of them."""
    root, contents = folder / f"{name}-{suite}", folder / f"{name}-{suite}.packages"
    if not contents.exists() or contents.read_text() != packages:
        shutil.rmtree(root, ignore_errors=True)
        unfinished = folder / f"unfinished-{name}-{suite}"
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(unfinished)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (unfinished / "etc" / "machine-id").write_text("")  # each machine gets its own
        unfinished.rename(root)
        contents.write_text(packages)
    return root


@contextlib.contextmanager
def alone(folder: Path, lock: Path) -> Iterator[None]:
    """Be the only trial in `folder`, or end with a sentence. SIGTERM ends it as an exception does, so that what it has
    started ends, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another trial is under way in {folder}: choose another --folder")
        yield


def copy_checkout(to: Path) -> None:
    """What git knows of, and what it does not ignore, as it is now."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


class Host:
    """A copy of `root` in which commands run; `path` is its file system as seen from outside."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(path)], check=True)
        (path / "etc" / "hostname").write_text("trial\n")
        self._environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def init(self) -> int:
        """Its process 1, as numbered outside; 0 while there is none."""
        assert self._holder is not None
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def enter(self, *namespaces: str) -> list[str]:
        """The beginning of a command that runs in it, or in some of its namespaces alone."""
        chosen = namespaces or ("mount", "uts", "ipc", "net", "pid", "cgroup")
        return ["nsenter", f"--target={self.init}", *(f"--{one}" for one in chosen), "--"]

    # --- commands

    def set(self, **variables: str) -> None:
        """Give later commands these variables."""
        self._environment |= variables

    def try_(self, script: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, however that ends."""
        names = [f"{name}={value}" for name, value in self._environment.items()]
        return subprocess.run(
            [*self.enter(), "env", "-i", "-C", "/root", *names, "bash", "-euo", "pipefail", "-c", script],
            check=False, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, script: str, timeout: float = 120.0) -> str:
        """Run a shell script that must not fail; what it prints."""
        done = self.try_(script, timeout)
        if done.returncode:
            raise TrialError(f"exit code {done.returncode}:\n{script}\n{(done.stdout + done.stderr)[-_TOLD:]}")
        return done.stdout

    def fails(self, script: str) -> str:
        """Run a shell script that must fail; all that it prints."""
        done = self.try_(script)
        if not done.returncode:
            raise TrialError(f"this must fail:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    # --- files

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Replace a file, owner and group kept."""
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str:
        return (self.path / path.lstrip("/")).read_text()


def remove_groups(groups: Iterable[Path]) -> None:
    """Control groups, and those below them."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # the kernel may not have let go of it yet
                Path(folder).rmdir()


def until(check: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Ask ten times a second until it is so."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise TrialError(f"did not come in {timeout:.0f} s: {what}")
        time.sleep(0.1)
