"""One large file by scp to an sshd on the premises: a TCP route beside `ssh -R`, and beside no tunnel at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from benchmarks.file_server import HOST_ALIAS
from benchmarks.load.figures import Load
from benchmarks.programs import BenchmarkError, need_program
from benchmarks.scenarios.base import MIB, Bench, Figures, Scenario, metered
from benchmarks.site import FileServer
from benchmarks.systems.base import FILES, Endpoint

_SIZE = 10**9
_QUICK_SIZE = 64 * MIB
_TIMEOUT_S = 600.0


def scp(bench: Bench) -> Figures:
    """Copies the same file on a new connection; from the start of scp to its end, so SSH's handshake is in it."""
    server = bench.site.file_server
    if server is None:
        raise BenchmarkError("there is no file server")
    source, name = server.folder / "file", f"{bench.system}.copy"
    size = _QUICK_SIZE if bench.plan.is_quick else _SIZE
    if not source.exists():
        write_random(source, size)
    argv, environment = _command(server, bench.running.endpoint(FILES, is_tls=False), source, name)
    figures = metered(bench, lambda: _run(bench.site.cloud.command(argv), environment), push_bytes=size)
    check_copy(source, server.folder / "received" / name)
    return figures


def write_random(path: Path, size: int) -> None:
    """A file that nothing on the way could make smaller."""
    with path.open("wb") as file:
        for begin in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - begin)))


def check_copy(source: Path, copy: Path) -> None:
    """Compares the checksums, and removes the copy.

    Raises:
        BenchmarkError: they differ.
    """
    digests = []
    for path in (source, copy):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    sizes = source.stat().st_size, copy.stat().st_size
    copy.unlink()
    if digests[0] != digests[1]:
        raise BenchmarkError(f"the copy is not the file: {digests[1]} of {sizes[1]:,} bytes, not {digests[0]} of "
                             f"{sizes[0]:,}")  # fmt: skip


def _command(server: FileServer, door: Endpoint, source: Path, name: str) -> tuple[list[str], dict[str, str]]:
    program, ssh = need_program("scp"), need_program("ssh")
    argv = [program.path, "-q", "-S", ssh.path, "-F", "none", "-P", str(door.port), "-i", f"{server.folder}/client_key"]
    for option in (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=yes",
        f"HostKeyAlias={HOST_ALIAS}",
        f"UserKnownHostsFile={server.folder}/known_hosts",
        "Compression=no",
    ):
        argv += ["-o", option]
    argv += [str(source), f"{server.user}@{door.host}:{server.folder}/received/{name}"]
    return argv, {**os.environ, **program.environment}


def _run(argv: list[str], environment: dict[str, str]) -> Load:
    began = time.monotonic()
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"scp did not end within {_TIMEOUT_S:.0f} s") from None
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise BenchmarkError(f"scp failed: {done.stderr[-800:]}")
    return Load.from_latencies([seconds], seconds, {})


SCENARIOS = (
    Scenario(
        "tcp-scp",
        "scp of 1 GB to an sshd on the premises, through a TCP route; 64 MiB when quick",
        scp,
        group="bulk",
        systems=("qanat", "qanat-compiled", "direct", "nginx+ssh-R"),
        is_long=True,
        takes_s=8.0,
        spans=0.0,
        has_file_server=True,
    ),
)
