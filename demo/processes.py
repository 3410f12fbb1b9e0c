"""The demo's processes: started in a session of their own each, listened to, and ended by their ids."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from demo.events import parse

ROOT = Path(__file__).resolve().parent.parent


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """One process; what it writes to standard error goes to a file in the demo's folder."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.process.pid} exit={self.process.returncode}>"

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    def tail(self) -> str:
        """The last lines that it wrote to standard error, at most 2,000 characters."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])[-2000:]

    async def follow(self, record: Callable[[dict[str, Any]], None]) -> None:
        """Hands on its events until it closes its standard output."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event = parse(line)
            if event is not None:
                record(event)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if there is still somebody to get it."""
        if self.is_running:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                pass

    async def stop(self, patience: float = 8.0) -> None:
        """Asks it to end, and insists after `patience` seconds."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()


async def start(folder: Path, name: str, argv: Sequence[str], *, has_events: bool = False) -> Child:
    """Starts a command; with `has_events`, its standard output is for `Child.follow`, else it goes to the log."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if has_events else output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
    return Child(name, process, log)


async def start_module(folder: Path, name: str, module: str, *arguments: str) -> Child:
    """Starts a module of the demo that writes events."""
    return await start(folder, name, [sys.executable, "-m", module, *arguments], has_events=True)


async def wait_until(
    check: Callable[[], Awaitable[bool]], child: Child, what: str, *, timeout: float = 20.0, every: float = 0.02
) -> float:
    """Waits until `check` says yes; returns when that was, on the monotonic clock.

    Raises:
        DemoError: the child ended, or it took too long.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if await check():
            return time.monotonic()
        if not child.is_running:
            raise DemoError(f"{child.name} ended by itself\n{child.tail()}")
        await asyncio.sleep(every)
    raise DemoError(f"{child.name}: {what} did not come in {timeout:.0f} s\n{child.tail()}")


async def wait_for_port_file(path: Path, child: Child) -> int:
    """The port that a child wrote to `path`."""

    async def is_there() -> bool:
        return path.exists()

    await wait_until(is_there, child, "its port")
    return int(path.read_text())
