"""What this process is and may use: for `diag`, and for whoever judges whether it has enough of it."""

from __future__ import annotations

import os
import platform
import resource
import ssl
import sys
import threading
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from shared.status import version

_LIMITS: Final = {
    "files": resource.RLIMIT_NOFILE, "processes": resource.RLIMIT_NPROC, "address_space": resource.RLIMIT_AS,
    "locked_memory": resource.RLIMIT_MEMLOCK, "core": resource.RLIMIT_CORE,
}  # fmt: skip
_CGROUP: Final = Path("/sys/fs/cgroup")
_OURS: Final = frozenset(
    {
        "aiohttp", "cryptography", "httptools", "orjson", "prometheus-client", "pydantic", "pyjwt", "pyyaml", "qanat",
        "rich", "structlog", "typer", "uvloop", "websockets",
    }
)  # fmt: skip


def versions() -> dict[str, Any]:
    """What runs here: Qanat, whether it is the compiled build, Python, OpenSSL, the libraries, the system."""
    found = {name: one.version for one in distributions() if (name := str(one.metadata["Name"]).lower()) in _OURS}
    link = sys.modules.get("shared.tunnel.link")
    return {
        "qanat": version(),
        "is_compiled": link is not None and not str(link.__file__).endswith(".py"),
        "python": sys.version,
        "openssl": ssl.OPENSSL_VERSION,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": dict(sorted(found.items())),
    }


def process_facts() -> dict[str, Any]:
    """Descriptors, memory, threads and limits of this very process. JSON-able; None for what the system does not say
    and for what has no limit."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pid": os.getpid(),
        "user": os.geteuid(),
        "threads": threading.active_count(),
        "open_files": count_open_files(),
        "file_limit": file_limit(),
        "limits": {name: _limit(number) for name, number in _LIMITS.items()},
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "cpu_s": {"user": round(usage.ru_utime, 2), "system": round(usage.ru_stime, 2)},
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cgroup": {name: _first_line(_CGROUP / name) for name in ("memory.max", "memory.current", "cpu.max")},
    }


def file_limit() -> int | None:
    """Files that this process may have open at once; None: any number."""
    return _limit(resource.RLIMIT_NOFILE)["soft"]


def count_open_files() -> int | None:
    """Files, sockets and the like that are open now."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that reads the list
    except OSError:
        return None


def _limit(number: int) -> dict[str, int | None]:
    soft, hard = resource.getrlimit(number)
    return {
        "soft": None if soft == resource.RLIM_INFINITY else soft,
        "hard": None if hard == resource.RLIM_INFINITY else hard,
    }


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().split("\n", 1)[0]
    except OSError:
        return None
