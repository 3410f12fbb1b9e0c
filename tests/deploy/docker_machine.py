"""A machine with a Docker engine of its own, made of Debian's packages. Needs root and debootstrap.

It has namespaces of its own for all but users and control groups: what the engine does to mounts, bridges and packet
filters is nobody else's, and goes with it. Its way out is slirp4netns, which takes nothing but sockets of this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from tests.deploy.host import Host, TrialError, remove_groups, until

PACKAGES: Final = {
    "bookworm": "docker.io,docker-compose",  # Docker 20.10 with its old builder, docker-compose 1.29
    "trixie": "docker.io,docker-cli,docker-compose,docker-buildx",  # Docker 26.1 with BuildKit, Compose 2.26
}
"""What Debian calls an engine, by release."""

OTHERS: Final = "dnsmasq-base,slirp4netns,iptables,iproute2,procps,kmod,python3,curl,openssl,ca-certificates"
ADDRESS: Final = "10.0.2.100"
"""The machine's own, which slirp4netns gives."""

RELAY_NAME: Final = "relay.example.com"
_START: Final = 60.0
_STOP: Final = 60.0
_MOUNTED: Final = "run/outside"

_BOOT: Final = f"""
set -eu
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
[ ! -d /lib/modules ] || {{ mkdir -p "$root/usr/lib/modules"; mount --bind /lib/modules "$root/usr/lib/modules"; }}
mkdir "$root/{_MOUNTED}"
cd "$root"
pivot_root . {_MOUNTED}
umount -l /{_MOUNTED}
rmdir /{_MOUNTED}
ip link set lo up
hostname trial
trap '' CHLD  # which lets the kernel bury what is left to process 1
exec sleep infinity
"""


class DockerMachine(Host):
    """A copy of `root` in which an engine runs. Ends with the `with` block."""

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(path, root)
        (path / "etc" / "hosts").write_text(f"127.0.0.1 localhost trial\n{ADDRESS} {RELAY_NAME}\n")
        (path / "etc" / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        (path / "etc" / "resolv.outside").write_text(_resolvers())
        self.log = path.with_suffix(".engine")
        self._output = self.log.open("wb")
        self._groups = f"qanat-docker-trial-{os.getpid()}"
        self._way_out: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop_engine()
        finally:
            self._end()
            shutil.rmtree(self.path / "var" / "lib" / "docker", ignore_errors=True)

    def _boot(self) -> None:
        own = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        self._holder = self._spawn(["unshare", *own, "sh", "-c", _BOOT, "sh", str(self.path)])
        until(lambda: self._is_up, "the machine is up", _START)
        slirp = ["slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", "1", "tap0"]
        self._way_out = self._spawn([*self.enter("mount"), *slirp])
        until(lambda: ADDRESS in self.try_("ip -4 address show dev tap0").stdout, "a way out", _START)
        self.run(f"dnsmasq --user=root --bind-interfaces --listen-address={ADDRESS} "
                 "--resolv-file=/etc/resolv.outside > /dev/null 2>&1")  # fmt: skip
        self._start_engine()

    def _start_engine(self) -> None:
        self._engine = self._spawn([*self.enter(), "dockerd", f"--cgroup-parent=/{self._groups}"])
        until(lambda: self.try_("docker info").returncode == 0, f"an engine (see {self.log})", _START)

    def restart_engine(self) -> None:
        """With all that it runs."""
        self._stop_engine()
        self._start_engine()

    @property
    def _is_up(self) -> bool:
        assert self._holder is not None
        if self._holder.poll() is not None:
            raise TrialError(f"the machine did not come up: see {self.log}")
        return bool(self.init) and Path(f"/proc/{self.init}/comm").read_text() == "sleep\n"

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        """A process that goes with us, however we end."""
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _stop_engine(self) -> None:
        """In good order: it ends all containers, and unmounts what is theirs."""
        assert self._engine is not None
        self.run("kill $(cat /run/docker.pid)")
        self._engine.wait(_STOP)

    def _end(self) -> None:
        for process in (self._way_out, self._holder, self._engine):  # with the holder, all that is in its namespaces
            if process is not None:
                process.kill()
                process.wait()
        self._output.close()
        places = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        remove_groups(group for group in (place / self._groups for place in places) if group.is_dir())

    def import_image(self, name: str, root: Path, changes: list[str]) -> None:
        """An image of one layer, of the files below `root`."""
        pack: IO[bytes] | None
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            pack = tar.stdout
            options = [word for change in changes for word in ("--change", change)]
            subprocess.run(
                [*self.enter(), "docker", "import", *options, "-", name],
                check=True, stdin=pack, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        if tar.returncode:
            raise TrialError(f"tar could not read {root}")


def _resolvers() -> str:
    """Whom this machine asks for names, and not its own stub of systemd-resolved: that one is out of reach there."""
    behind = Path("/run/systemd/resolve/resolv.conf")
    return (behind if behind.exists() else Path("/etc/resolv.conf")).read_text()
