"""How a process starts another one in its own place: the same command, whatever is installed under that name now.

The other one inherits descriptors, named in one variable. Where a service manager follows the main process, it is
detached, so that the manager becomes its parent. Else whoever watches this process would take its end for that of the
program: so it stays, as the parent of all that come after it, until the last has ended.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_PER_PROCESS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Launcher:
    """Starts the next process. `is_detached`: it becomes no child of ours."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, is_detached: bool = False) -> None:
        self.command = list(command)
        self.is_detached = is_detached
        self.has_children = False
        """Whether a process that was started here was ours to wait for."""
        self._environ = {name: value for name, value in environ.items() if name not in _PER_PROCESS}

    def __repr__(self) -> str:
        return f"<Launcher of {' '.join(self.command)}>"

    def launch(self, variables: Mapping[str, str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start it with these variables on top, and these descriptors under their own numbers. OSError.

        Detached, what is returned is a shell that ends at once, and the program belongs to whoever adopts orphans.
        """
        command = self.command
        if self.is_detached:
            command = ["/bin/sh", "-c", '"$@" <&0 &', "sh", *command]
        else:
            become_subreaper()
        environ = {**self._environ, **variables}
        started = subprocess.Popen(command, env=environ, pass_fds=tuple(descriptors))  # noqa: S603 - our own command
        self.has_children = self.has_children or not self.is_detached
        return started

    def hold_signals(self) -> None:
        """Keep what comes from now on for `stay_for_children`, which passes it on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)

    def end_children(self) -> None:
        """Tell all of them to end: SIGTERM."""
        _signal_children(signal.SIGTERM)


def own_command() -> list[str]:
    """The command line of this process, for whatever is installed there when it is used."""
    program = shutil.which(sys.argv[0]) or sys.argv[0]
    path = os.path.abspath(program)
    is_module = getattr(sys.modules.get("__main__"), "__spec__", None) is not None
    if not is_module and os.path.isfile(path) and os.access(path, os.X_OK):
        return [path, *sys.argv[1:]]  # a script's first line names its own interpreter
    return [sys.executable, *sys.orig_argv[1:]]


def become_subreaper() -> None:
    """Be the parent of all descendants whose own parent has ended, for ever (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stay_for_children() -> int:
    """Wait until all children have ended, adopted ones too, and pass signals on to them; how the last one ended.

    SIGINT is passed on only where it cannot have come from a terminal, which sends it to all of them.
    """

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and os.isatty(0):
            return
        _signal_children(number)

    _give_memory_back()
    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = 0
    while True:
        try:
            _, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code  # as a shell says it


def _give_memory_back() -> None:
    """What the program had is of no use any more."""
    gc.unfreeze()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc's
        trim(0)


def _signal_children(number: int) -> None:
    for listed in Path("/proc/self/task").glob("*/children"):
        try:
            children = listed.read_text().split()
        except OSError:  # a thread that has just ended
            continue
        for child in children:
            try:
                os.kill(int(child), number)
            except ProcessLookupError:
                pass
