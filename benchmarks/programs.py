"""Programs that the benchmarks run: finding them, starting them, ending them by their own id."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.procfs import Tree

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers"
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu")
_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


class BenchmarkError(Exception):
    """Something that the measuring stands on is missing or broke; the text says what."""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable and what its environment needs."""

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_program(name: str) -> Program | None:
    """The program from PATH (or the usual sbin folders), else from the unpacked Debian packages in `.peers/`."""
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)
    if found:
        return Program(found)
    for folder in _FOLDERS:
        path = PEERS / folder / name
        if path.is_file() and os.access(path, os.X_OK):
            libraries = [str(PEERS / one) for one in _LIBRARIES if (PEERS / one).is_dir()]
            return Program(str(path), {"LD_LIBRARY_PATH": ":".join(libraries)})
    return None


def need_program(name: str) -> Program:
    """As `find_program`.

    Raises:
        BenchmarkError: it is not there.
    """
    program = find_program(name)
    if program is None:
        raise BenchmarkError(f"{name} is missing: put it on the PATH, or run `make peers`")
    return program


def missing_programs(*names: str) -> list[str]:
    """Those of `names` that cannot be found."""
    return [name for name in names if find_program(name) is None]


class Process:
    """A program that runs; its output goes to a file, and `stop` ends it and all its descendants by their ids."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.pid = popen.pid
        self._popen = popen
        self._log = log

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid}>"

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def tail(self, lines: int = 12) -> str:
        """The last lines that it wrote, at most 2,000 characters."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])[-2000:]

    def kill(self) -> None:
        """Ends it at once, as a crash would; `stop` cleans up after it."""
        self._popen.kill()
        self._popen.wait()

    def stop(self, grace: float = 4.0) -> None:
        """Asks it to end, insists after `grace` seconds, and ends what it left behind."""
        if self.is_running:
            tree = Tree(self.pid)
            tree.refresh()
            self._popen.terminate()
            try:
                self._popen.wait(grace)
            except subprocess.TimeoutExpired:
                self._popen.kill()
            tree.kill_descendants()
        self._popen.wait()


def start_process(
    argv: Sequence[str],
    *,
    name: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Starts a program in `folder`; its output goes to `folder/<name>.log`."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            list(argv),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    return Process(name, popen, log)
