"""An sshd on the premises as the target of scp; it takes files and nothing else."""

from __future__ import annotations

import os

from benchmarks.programs import need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import FileServer, Site
from benchmarks.systems.ssh import SSHD_CONFIG, account_of_sshd, write_ssh_key

HOST_ALIAS = "files"
"""What clients know the host by, whichever way they come."""


def start_file_server(site: Site) -> FileServer:
    """Starts it; files go to `received` in its folder.

    Raises:
        BenchmarkError: sshd is missing or does not start.
    """
    program, account, port = need_program("sshd"), account_of_sshd(), free_port()
    folder = site.folder / "files"
    folder.mkdir(mode=0o755)
    received = folder / "received"
    received.mkdir()
    if account.uid is not None:
        os.chown(received, account.uid, -1)
    host_key = write_ssh_key(folder / "host_key", account.uid)
    (folder / "known_hosts").write_text(f"{HOST_ALIAS} {host_key}\n")
    (folder / "authorized_keys").write_text(write_ssh_key(folder / "client_key", None) + "\n")
    config = SSHD_CONFIG.format(port=port, address=site.premises.listen_address, folder=folder)
    (folder / "sshd_config").write_text(config + "Subsystem sftp internal-sftp\n")
    argv = [program.path, "-D", "-e", "-f", str(folder / "sshd_config")]
    process = site.start(site.premises, argv, "files", program.environment, account.uid)
    wait_for_port(port, process, site.premises)
    return FileServer(folder, port, account.name)
