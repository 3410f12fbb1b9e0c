"""nginx as the TLS ingress, and `ssh -R` from the premises to an sshd of our own beside it."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.nginx import start_ingress
from benchmarks.programs import Process, missing_programs, need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import Site
from benchmarks.systems.base import FILES, Endpoint, Running, Shape, both_doors

SSHD_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
AllowTcpForwarding remote
X11Forwarding no
PrintMotd no
Compression no
LogLevel ERROR
"""

_CLIENT_OPTIONS = (
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "StrictHostKeyChecking=yes",
    "ExitOnForwardFailure=yes",
    "Compression=no",
    "ServerAliveInterval=15",
    "LogLevel=ERROR",
)


@dataclass(frozen=True, slots=True)
class Account:
    """Whom sshd runs as: root needs a system account for its privilege separation, anybody else needs nothing."""

    name: str
    uid: int | None


def account_of_sshd() -> Account:
    if os.geteuid() == 0:
        # not `nobody`: where systemd makes that account up, sshd takes it for locked
        daemon = pwd.getpwnam("daemon")
        return Account(daemon.pw_name, daemon.pw_uid)
    return Account(pwd.getpwuid(os.geteuid()).pw_name, None)


def write_ssh_key(path: Path, owner: int | None) -> str:
    """Makes a key; returns its public half as one line."""
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    if owner is not None:
        os.chown(path, owner, -1)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class NginxSsh:
    """The set-up of an administrator who knows OpenSSH: default ciphers, no compression, one connection."""

    name = "nginx+ssh-R"

    def missing(self) -> list[str]:
        return missing_programs("nginx", "sshd", "ssh")

    def start(self, site: Site, shape: Shape) -> Running:
        account = account_of_sshd()
        folder = site.folder
        host_key = write_ssh_key(folder / "host_key", account.uid)
        (folder / "authorized_keys").write_text(write_ssh_key(folder / "client_key", None) + "\n")
        sshd, port = self._start_sshd(site, account)
        (folder / "known_hosts").write_text(f"[{site.cloud.address}]:{port} {host_key}\n")
        ports = dict(site.targets)
        if site.file_server is not None:
            ports[FILES] = site.file_server.port
        forwards = {name: (free_port(), target) for name, target in ports.items()}
        ssh = self._start_client(site, account, port, list(forwards.values()))
        upstreams = {name: ("127.0.0.1", forwards[name][0]) for name in site.targets}
        ingress, tls_port, plain_port = start_ingress(site, upstreams)
        for forward, _ in forwards.values():
            wait_for_port(forward, ssh, site.cloud)
        doors = both_doors(site.targets, tls_port, plain_port)
        if FILES in forwards:
            doors[FILES, False] = Endpoint(forwards[FILES][0], is_tls=False)
        return Running(doors, [ingress, sshd, ssh], {"relay": sshd, "connector": ssh})

    def _start_sshd(self, site: Site, account: Account) -> tuple[Process, int]:
        program, port = need_program("sshd"), free_port()
        config = site.folder / "sshd_config"
        config.write_text(SSHD_CONFIG.format(port=port, address=site.cloud.address, folder=site.folder))
        argv = [program.path, "-D", "-e", "-f", str(config)]
        sshd = site.start(site.cloud, argv, "sshd", program.environment, account.uid)
        wait_for_port(port, sshd, site.cloud, host=site.cloud.address)
        return sshd, port

    def _start_client(self, site: Site, account: Account, port: int, forwards: list[tuple[int, int]]) -> Process:
        program = need_program("ssh")
        argv = [program.path, "-N", "-F", "/dev/null", "-i", str(site.folder / "client_key"), "-p", str(port)]
        for option in (*_CLIENT_OPTIONS, f"UserKnownHostsFile={site.folder}/known_hosts"):
            argv += ["-o", option]
        for forward, target in forwards:
            argv += ["-R", f"127.0.0.1:{forward}:127.0.0.1:{target}"]
        argv.append(f"{account.name}@{site.cloud.address}")
        return site.start(site.premises, argv, "ssh", program.environment)
