"""A machine with a real systemd, made of Debian's packages and booted by systemd-nspawn. Needs root, debootstrap and
systemd-container. No systemd has to run outside; then the machine gets control groups of its own by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.deploy.host import Host, remove_groups, until

PACKAGES: Final = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,iproute2,curl"
_BOOT: Final = 60.0
_REBOOT: Final = 133
"""What systemd-nspawn exits with where nobody but its caller could start the machine again."""

HAS_SYSTEMD: Final = Path("/run/systemd/system").is_dir()
_HIERARCHIES: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


class Machine(Host):
    """A copy of `root`, booted. Ends with the `with` block."""

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(path, root)
        (path / "etc" / "hosts").write_text("127.0.0.1 localhost relay.example.com\n")
        self._console = path.with_suffix(".console").open("wb")
        self._groups: list[Path] = []

    def __enter__(self) -> Self:
        if not HAS_SYSTEMD:
            self._groups = make_groups(f"qanat-trial-{os.getpid()}")
        self.boot()
        return self

    def boot(self) -> None:
        """Start it, and wait until all that it starts is started."""
        alone = [] if HAS_SYSTEMD else ["--register=no", "--keep-unit"]
        self._holder = subprocess.Popen(
            ["systemd-nspawn", "--quiet", *alone, "--private-network", "--boot",
             f"--directory={self.path}", f"--machine=qanat-trial-{os.getpid()}"],
            stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=self._enter_groups,  # noqa: PLW1509 — there are no threads here
        )  # fmt: skip
        until(lambda: self.init and "running" in self.try_("systemctl is-system-running").stdout, "it is up", _BOOT)

    def reboot(self) -> None:
        """As its operator does."""
        assert self._holder is not None
        before = self.init
        self.run("systemctl reboot")
        if HAS_SYSTEMD:  # then systemd-nspawn starts it again
            until(lambda: self.init not in {0, before}, "it has gone down", _BOOT)
            until(lambda: "running" in self.try_("systemctl is-system-running").stdout, "it is up again", _BOOT)
            return
        assert self._holder.wait(_BOOT) == _REBOOT
        self.boot()

    def _enter_groups(self) -> None:
        for group in self._groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder is not None
        self._holder.terminate()  # which lets the machine shut down
        try:
            self._holder.wait(60)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._console.close()
        remove_groups(self._groups)

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
