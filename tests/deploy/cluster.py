"""A Kubernetes of one node, of real programs: etcd, the control plane, containerd and a kubelet, kube-proxy, CoreDNS,
and kube-router for the network policies. Needs root, the programs of tools/kubernetes.sh, and from Debian containerd,
runc, containernetworking-plugins, iptables, ipset and conntrack.

It lives in namespaces of its own, for processes, mounts and network: outside of them nobody is reached, and ending its
process 1 ends it whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trustme
import yaml

from tests.deploy.host import TrialError, until
from tests.deploy.node import NODE, PODS, SERVICES, containerd, domain_names, kubelet, network, storage

USERS: Final = {
    "admin": "system:masters", f"system:node:{NODE.name}": "system:nodes",
    "system:kube-controller-manager": "", "system:kube-scheduler": "", "system:kube-proxy": "",
}  # fmt: skip
"""Who asks the API server, and their groups: its built-in roles go by these names."""

_GROUPS: Final = Path("/sys/fs/cgroup")


class Cluster:
    """The node, its control plane, and commands in it. Ends with the `with` block."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.logs = folder / "logs"
        self.group = f"qanat-cluster-{os.getpid()}"
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._holder: subprocess.Popen[bytes] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._groups: list[Path] = []

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("logs", "lib", "var-log", "cni", "work", "volumes"):
            (self.folder / name).mkdir(parents=True)
        try:
            self._enter_namespaces()
            self.sh(network())
            self._write_files()
            self._start_control_plane()
            self._start_node()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            with contextlib.suppress(ProcessLookupError, TrialError):
                os.kill(self.init, signal.SIGKILL)  # and with it all others of its namespace
        for one in (*self._running.values(), self._holder):
            if one is not None:
                one.wait(30)
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # the kernel may not have let go of it yet
                    Path(folder).rmdir()

    # --- namespaces

    @property
    def init(self) -> int:
        """Its process 1, as numbered outside."""
        assert self._holder is not None
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        if not children:
            raise TrialError("the cluster's process 1 has ended")
        return int(children[0])

    def _enter_namespaces(self) -> None:
        """Process 1 ignores SIGCHLD, so that the kernel buries what is left to it. What programs write at fixed places
        comes into our folder, or goes with the namespace."""
        script = (
            f"mount --bind {self.folder}/lib /var/lib && mount --bind {self.folder}/var-log /var/log "
            "&& mount -t tmpfs run /run && mkdir /run/netns && mount --make-rshared / "
            "&& trap '' CHLD && echo up && exec sleep infinity"
        )
        with (self.logs / "process-1.log").open("wb") as log:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "--net", "--uts", "--ipc", "--pid", "--fork",
                 "--kill-child", "--mount-proc", "--", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise TrialError("no namespaces: is this root, with the right to mount?")
        # Of control groups there is one tree for all; the second version has them at its root.
        places = [_GROUPS, *(one for one in _GROUPS.iterdir() if one.is_dir())]
        for place in places:
            if (place / "cgroup.procs").exists() and (place == _GROUPS or os.path.ismount(place)):
                group = place / self.group
                group.mkdir()
                self._groups.append(group)
                for name in ("cpuset.cpus", "cpuset.mems"):  # of the first version; nothing runs in it before
                    if (group / name).exists() and (place / name).exists():
                        (group / name).write_text((place / name).read_text())

    def within(self, *argv: str, network: str = "") -> list[str]:
        """The command line that runs `argv` in the node, or in one of the networks around it."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--net", "--uts", "--ipc", "--pid", "--"]
        path = f"PATH={self.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kubeconfig = f"KUBECONFIG={self.folder}/admin.kubeconfig"
        there = ["ip", "netns", "exec", network] if network else []
        return [*enter, "env", "-i", "-C", str(self.folder / "work"), path, "HOME=/nonexistent", "LANG=C.UTF-8",
                kubeconfig, *there, *argv]  # fmt: skip

    def start(self, name: str, *argv: str, network: str = "") -> None:
        """A program that runs on; what it says goes into its log."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self.within(*argv, network=network), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def try_(self, script: str, network: str = "", timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, however that ends."""
        return subprocess.run(
            self.within("bash", "-euo", "pipefail", "-c", script, network=network),
            check=False, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def sh(self, script: str, network: str = "", timeout: float = 120.0) -> str:
        """Run a shell script that must not fail; what it prints."""
        done = self.try_(script, network, timeout)
        if done.returncode:
            raise TrialError(f"exit code {done.returncode}:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def fails(self, script: str, network: str = "") -> str:
        """Run a shell script that must fail; all that it prints."""
        done = self.try_(script, network)
        if not done.returncode:
            raise TrialError(f"this must fail:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    # --- the cluster's own programs

    def _write_files(self) -> None:
        folder = self.folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        own = authority.issue_cert("127.0.0.1", NODE.address, "10.96.0.1", "kubernetes.default.svc")
        own.private_key_pem.write_to_path(str(folder / "api.key"))
        for number, pem in enumerate(own.cert_chain_pems):
            pem.write_to_path(str(folder / "api.pem"), append=number > 0)
        lines = [f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()]
        (folder / "tokens.csv").write_text("".join(lines))
        for user, token in self._tokens.items():
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "it",
                "clusters": [{"name": "it", "cluster": {
                    "server": "https://127.0.0.1:6443", "certificate-authority": str(folder / "ca.pem"),
                }}],
                "users": [{"name": "it", "user": {"token": token}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            }  # fmt: skip
            (folder / f"{user.rpartition(':')[2]}.kubeconfig").write_text(yaml.safe_dump(config))
        (folder / "containerd.toml").write_text(containerd(folder))
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet(self.group, folder)))
        (folder / "Corefile").write_text(domain_names(folder))
        (folder / "resolv.conf").write_text(f"nameserver {NODE.address}\n")
        (folder / "hosts").write_text("")
        (folder / "cni" / "10-bridge.conflist").write_text(json.dumps(NODE.interfaces))

    def _start_control_plane(self) -> None:
        folder = self.folder
        self.start(
            "etcd", "etcd", f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
            "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
        )  # fmt: skip
        self.start(
            "kube-apiserver", "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--allow-privileged",
            f"--service-cluster-ip-range={SERVICES}", f"--advertise-address={NODE.address}",
            "--authorization-mode=Node,RBAC", "--kubelet-preferred-address-types=InternalIP",
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={folder}/tokens.csv", f"--tls-cert-file={folder}/api.pem",
            f"--tls-private-key-file={folder}/api.key", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/api.key", f"--service-account-signing-key-file={folder}/api.key",
        )  # fmt: skip
        until(lambda: self.try_("kubectl get --raw /readyz").returncode == 0, "the API server is ready", 120)
        controllers = f"--kubeconfig={folder}/kube-controller-manager.kubeconfig"
        self.start(
            "kube-controller-manager", "kube-controller-manager", controllers, "--leader-elect=false",
            f"--service-account-private-key-file={folder}/api.key", f"--root-ca-file={folder}/ca.pem",
            "--use-service-account-credentials", "--allocate-node-cidrs", f"--cluster-cidr={PODS}",
        )  # fmt: skip
        scheduler = f"--kubeconfig={folder}/kube-scheduler.kubeconfig"
        self.start("kube-scheduler", "kube-scheduler", scheduler, "--leader-elect=false")

    def _start_node(self) -> None:
        folder = self.folder
        self.start("containerd", "containerd", f"--config={folder}/containerd.toml")
        until(lambda: self.try_("ctr version").returncode == 0, "containerd answers")
        self.start(
            "kubelet", "kubelet", f"--config={folder}/kubelet.yaml", f"--kubeconfig={folder}/{NODE.name}.kubeconfig",
            f"--hostname-override={NODE.name}", f"--node-ip={NODE.address}",
        )  # fmt: skip
        until(
            lambda: self.try_(f"kubectl wait --for=condition=Ready node/{NODE.name} --timeout=1s").returncode == 0,
            "the node is ready", 120,
        )  # fmt: skip
        self.start(
            "kube-proxy", "kube-proxy", f"--kubeconfig={folder}/kube-proxy.kubeconfig",
            f"--hostname-override={NODE.name}", "--proxy-mode=iptables", f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )  # fmt: skip
        self.start(
            "kube-router", "kube-router", f"--kubeconfig={folder}/admin.kubeconfig", "--run-firewall=true",
            "--run-router=false", "--run-service-proxy=false", f"--hostname-override={NODE.name}",
            f"--service-cluster-ip-range={SERVICES}", "--enable-cni=false",
        )  # fmt: skip
        self.start("coredns", "coredns", f"-conf={folder}/Corefile")
        self.apply(storage(folder / "volumes"))

    # --- what is asked of it

    def kubectl(self, arguments: str, timeout: float = 120.0) -> str:
        """kubectl as an administrator; what it prints."""
        return self.sh(f"kubectl {arguments}", timeout=timeout)

    def get(self, what: str) -> dict[str, Any]:
        """An object, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl(f"get {what} --output json"))
        return found

    def apply(self, objects: list[dict[str, Any]]) -> None:
        """Make them so."""
        file = self.folder / "apply.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        self.kubectl(f"apply --validate=strict --filename {file}")

    def load(self, archive: Path, *names: str) -> None:
        """An image from the file that `docker save` wrote, under `names` besides its own."""
        said = self.sh(f"ctr --namespace k8s.io images import {archive}", timeout=300)
        own = said.split("unpacking ")[1].split()[0]
        for name in names:
            self.sh(f"ctr --namespace k8s.io images tag --force {own} {name}")

    def name(self, address: str, *names: str) -> None:
        """Have DNS tell `address` for `names`, within the cluster and around it."""
        with (self.folder / "hosts").open("a") as hosts:
            hosts.write(f"{address} {' '.join(names)}\n")
        time.sleep(1.5)  # CoreDNS looks every second
