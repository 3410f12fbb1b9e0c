"""The machine on which it was measured: without that, no figure means anything."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.programs import find_program

_PACKAGES = ("uvloop", "websockets", "httptools", "cryptography", "picows")
_PROGRAMS = {
    "nginx": ["-v"],
    "ssh": ["-V"],
    "wrk": ["-v"],
    "chisel": ["--version"],
    "frps": ["--version"],
    "rathole": ["--version"],
}


def describe() -> dict[str, Any]:
    """Hardware, kernel, versions, and how busy it was; no name or address of the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: version for name in _PACKAGES if (version := _package(name))},
        "programs": {name: version for name, args in _PROGRAMS.items() if (version := _version(name, args))},
        "load_before": round(os.getloadavg()[0], 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def one_line(machine: dict[str, Any]) -> str:
    """The machine in a sentence, for captions."""
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}, "
        f"kernel {machine['kernel']}, Python {machine['python']}, {machine['time'][:10]}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version(name: str, arguments: list[str]) -> str | None:
    program = find_program(name)
    if program is None:
        return None
    result = subprocess.run(
        [program.path, *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env={**os.environ, **program.environment},
    )
    lines = (result.stdout + result.stderr).strip().splitlines()
    told = [line.split(":", 1)[1] for line in lines if line.startswith("Build Version:")]  # rathole's comes later
    return " ".join((told or lines)[0].split()[:6]) if lines else None
