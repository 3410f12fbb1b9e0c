"""Two networks with a line between them: namespaces, a TUN device in each, and a process that delays what passes.

No netem is needed, only root, /dev/net/tun, `unshare`, `nsenter` and `ip`. Nothing of it outlives the processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import ROOT, BenchmarkError, Process, missing_programs, start_process
from benchmarks.scenarios.base import LinkShape
from benchmarks.side import Side, wait_for_file

CLOUD, PREMISES = "10.213.0.1", "10.213.0.2"  # inside the namespaces only
_TCP_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Network:
    """The two sides."""

    cloud: Side
    premises: Side


def why_no_networks() -> str:
    """What is missing for two networks; empty when nothing is."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    lacking = missing_programs("unshare", "nsenter", "ip", "sysctl", "setpriv")
    return f"missing: {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def two_networks(folder: Path, shape: LinkShape) -> Iterator[Network]:
    """Makes both namespaces and the line between them; ends all of it at the end."""
    processes: list[Process] = []
    try:
        holders = [start_holder(folder, name, processes) for name in ("cloud", "premises")]
        _start_line(folder, shape, holders, processes)
        for holder, own, other in zip(holders, (CLOUD, PREMISES), (PREMISES, CLOUD), strict=True):
            _configure(holder, own, other, shape.mtu)
        yield Network(Side(CLOUD, holders[0]), Side(PREMISES, holders[1]))
    finally:
        for process in reversed(processes):
            process.stop()


def start_holder(folder: Path, name: str, processes: list[Process]) -> int:
    """A process that does nothing but hold a namespace."""
    ready = folder / f"{name}.ready"
    script = f"echo ready > {ready}.part && mv {ready}.part {ready} && exec sleep infinity"
    process = start_process(["unshare", "--net", "sh", "-c", script], name=f"{name}-namespace", folder=folder)
    processes.append(process)
    wait_for_file(ready, process)
    return process.pid


def _start_line(folder: Path, shape: LinkShape, holders: list[int], processes: list[Process]) -> None:
    ready = folder / "line.ready"
    arguments = [*map(str, holders), str(shape.bits_per_s), str(shape.delay_s), str(shape.queue_bytes), str(shape.mtu)]
    argv = [sys.executable, "-m", "benchmarks.delay_line", str(ready), *arguments]
    process = start_process(argv, name="line", folder=folder, environment={"PYTHONPATH": str(ROOT)})
    processes.append(process)
    wait_for_file(ready, process)


def _configure(holder: int, own: str, other: str, mtu: int) -> None:
    """Addresses, and TCP buffers that fill a long fat pipe."""
    inside = ["nsenter", f"--net=/proc/{holder}/ns/net"]
    run_command([*inside, "ip", "link", "set", "lo", "up"])
    run_command([*inside, "ip", "addr", "add", own, "peer", other, "dev", "qanat0"])
    run_command([*inside, "ip", "link", "set", "qanat0", "mtu", str(mtu), "up"])
    for key in ("tcp_rmem", "tcp_wmem"):
        run_command([*inside, "sysctl", "-qw", f"net.ipv4.{key}=4096 131072 {_TCP_BYTES}"])


def run_command(argv: list[str]) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    if result.returncode != 0:
        raise BenchmarkError(f"{' '.join(argv)}: {result.stderr.strip()}")
