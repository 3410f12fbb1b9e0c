"""A machine with a real systemd, made of Debian's packages and booted by systemd-nspawn. Needs root, debootstrap and
systemd-container. No systemd has to run outside; then the machine gets control groups of its own by hand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

PACKAGES: Final = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,iproute2,curl"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT: Final = 60.0
_REBOOT: Final = 133
"""What systemd-nspawn exits with where nobody but its caller could start the machine again."""

HAS_SYSTEMD: Final = Path("/run/systemd/system").is_dir()
_HIERARCHIES: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


class TrialError(Exception):
    """Something is not as it should be."""


def make_root(folder: Path, suite: str) -> Path:
    """Debian's `suite` with what the programs need, unpacked once into `folder`."""
    root = folder / f"root-{suite}"
    if not (root / "etc" / "machine-id").exists():
        unfinished = folder / f"unfinished-{suite}"
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(unfinished)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (unfinished / "etc" / "machine-id").write_text("")  # each machine gets its own
        unfinished.rename(root)
    return root


class Machine:
    """A copy of `root`, booted; `path` is its file system as seen from outside. Ends with the `with` block."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(path)], check=True)
        (path / "etc" / "hosts").write_text("127.0.0.1 localhost relay.example.com\n")
        (path / "etc" / "hostname").write_text("trial\n")
        self._environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
        self._console = path.with_suffix(".console").open("wb")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def __enter__(self) -> Self:
        if not HAS_SYSTEMD:
            self._groups = make_groups(f"qanat-trial-{os.getpid()}")
        self.boot()
        return self

    def boot(self) -> None:
        """Start it, and wait until all that it starts is started."""
        alone = [] if HAS_SYSTEMD else ["--register=no", "--keep-unit"]
        self._nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", *alone, "--private-network", "--boot",
             f"--directory={self.path}", f"--machine=qanat-trial-{os.getpid()}"],
            stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=self._enter_groups,  # noqa: PLW1509 — there are no threads here
        )  # fmt: skip
        until(lambda: self.init and "running" in self.try_("systemctl is-system-running").stdout, "it is up", _BOOT)

    def reboot(self) -> None:
        """As its operator does."""
        assert self._nspawn is not None
        before = self.init
        self.run("systemctl reboot")
        if HAS_SYSTEMD:  # then systemd-nspawn starts it again
            until(lambda: self.init not in {0, before}, "it has gone down", _BOOT)
            until(lambda: "running" in self.try_("systemctl is-system-running").stdout, "it is up again", _BOOT)
            return
        assert self._nspawn.wait(_BOOT) == _REBOOT
        self.boot()

    def _enter_groups(self) -> None:
        for group in self._groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._nspawn is not None
        self._nspawn.terminate()  # which lets the machine shut down
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._console.close()
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # the kernel may not have let go of it yet
                    Path(folder).rmdir()

    @property
    def init(self) -> int:
        """Its process 1, as numbered outside; 0 while there is none."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    # --- commands

    def set(self, **variables: str) -> None:
        """Give later commands these variables."""
        self._environment |= variables

    def try_(self, script: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, however that ends."""
        names = [f"{name}={value}" for name, value in self._environment.items()]
        return subprocess.run(
            ["nsenter", f"--target={self.init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
             "env", "-i", "-C", "/root", *names, "bash", "-euo", "pipefail", "-c", script],
            check=False, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, script: str, timeout: float = 120.0) -> str:
        """Run a shell script that must not fail; what it prints."""
        done = self.try_(script, timeout)
        if done.returncode:
            raise TrialError(f"exit code {done.returncode}:\n{script}\n{done.stdout}{done.stderr}")
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

    # --- units

    def show(self, unit: str, *names: str) -> list[str]:
        """Properties of a unit."""
        lines = self.run(f"systemctl show {unit} --property={','.join(names)}").splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return [found[name] for name in names]

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """What `systemctl edit` does."""
        self.write(f"/etc/systemd/system/{unit}.service.d/{name}.conf", text)
        self.run("systemctl daemon-reload")

    def no_drop_in(self, unit: str, name: str) -> None:
        (self.path / f"etc/systemd/system/{unit}.service.d/{name}.conf").unlink()
        self.run("systemctl daemon-reload")

    def journal(self, cursor: str = "") -> list[dict[str, Any]]:
        """What the units of ours, and systemd about them, have said since `cursor`."""
        after = f"--after-cursor='{cursor}'" if cursor else ""
        entries = map(json.loads, self.run(f"journalctl --no-pager --all --output=json {after}").splitlines())
        return [one for one in entries if one.get("UNIT", one.get("_SYSTEMD_UNIT", "")).startswith("qanat-")]


def make_groups(name: str) -> list[Path]:
    """A control group of this name in each hierarchy that systemd uses."""
    places = [Path(one) for one in _HIERARCHIES]
    groups = [place / name for place in places if (place / "cgroup.procs").exists()]
    for group in groups:
        group.mkdir()
    return groups


def until(check: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Ask ten times a second until it is so."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise TrialError(f"did not come in {timeout:.0f} s: {what}")
        time.sleep(0.1)
