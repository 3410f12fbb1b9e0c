"""Processes of the system tests: started in a session of their own, listened to, and ended by their ids."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.procfs import read_peak_rss_mib, read_rss_mib

ROOT: Final = Path(__file__).resolve().parents[2]


async def until(check: Callable[[], Any], what: str, timeout: float = 20.0) -> Any:
    """Asks `check` (which may be async) every 10 ms until it says something true, and gives that.

    Raises:
        AssertionError: nothing true came in `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not come in {timeout:.0f} s: {what}"
        await asyncio.sleep(0.01)


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment(**more: str) -> dict[str, str]:
    """Ours without the machine's proxies, and with `more`."""
    ours = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    path = os.pathsep.join(filter(None, (os.environ.get("QANAT_BUILD"), str(ROOT))))
    return ours | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"} | more


def command(name: str) -> str:
    """A program of the virtual environment."""
    return str(Path(sys.executable).with_name(name))


class Program:
    """A process. What it writes to standard output and standard error goes to `<name>.out` and `<name>.err`."""

    def __init__(
        self, name: str, argv: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._out = folder / f"{name}.out"
        self._err = folder / f"{name}.err"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._popen = subprocess.Popen(
                list(argv),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(variables if variables is not None else environment()),
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.started_at = time.monotonic()

    def __repr__(self) -> str:
        return f"<Program {self.name} pid={self.pid} exit={self.exit_code}>"

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if there is still somebody to get it."""
        if self.is_running:
            self._popen.send_signal(number)

    async def ended(self, timeout: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        await until(lambda: not self.is_running, f"the end of {self.name}", timeout)
        return self._popen.returncode

    async def kill(self) -> None:
        """SIGKILL to it and its children (nginx has workers); returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # the leader of a session of its own
        await self.ended()

    async def stop(self, patience: float = 8.0) -> int:
        """SIGTERM, and SIGKILL after `patience` seconds."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return await self.ended(patience)
        except AssertionError:
            await self.kill()
            return self._popen.returncode

    # --- what it said

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def access_lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON, line by line."""
        return _objects(self.out)

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """Standard error as JSON; other lines are left out."""
        return _objects(self.err)

    def assert_tidy(self) -> None:
        """It has closed what it had opened, as far as Python and uvloop noticed."""
        left = [line for line in self.err.splitlines() if "ResourceWarning" in line]
        assert not left, f"{self} left to the garbage collector: {left}"

    # --- what it costs

    @property
    def rss_mib(self) -> float:
        return read_rss_mib(self.pid)

    @property
    def peak_rss_mib(self) -> float:
        """The most that it ever had, or since `forget_peak`."""
        return read_peak_rss_mib(self.pid)

    def forget_peak(self) -> None:
        """Count `peak_rss_mib` from now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def _objects(text: str) -> list[dict[str, Any]]:
    """The last line may not be whole yet."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
