"""The course of the demo: start, push, kill the connector half-way, start it again, settle, judge."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import time
import typing
from dataclasses import dataclass, field
from pathlib import Path

from demo.ledger import Ledger
from demo.processes import Child, DemoError, start_module, wait_for_port_file
from demo.receiver import OTLP_PATH, REMOTE_WRITE_PATH
from demo.settings import SenderSettings, write_settings

OTLP_SENDERS = ["application-1", "application-2"]
REMOTE_WRITE_SENDERS = ["prometheus-1", "prometheus-2", "prometheus-3", "prometheus-4"]
_AWAY_S = 1.0
_FIRST_PUSH_S = 20.0
_SETTLING_S = 20.0


class Passage(typing.Protocol):
    """What lies between the senders and the target."""

    async def start(self, target_port: int) -> None:
        """Returns when pushes can cross."""
        ...

    def settings(self, path: str, names: list[str], interval_s: float) -> SenderSettings:
        """What a sender process needs to push to `path`."""
        ...

    async def kill_connector(self) -> None: ...

    async def restart_connector(self) -> float:
        """Starts it again; returns when its process was up (not yet attached), on the monotonic clock."""
        ...

    async def tunnels(self) -> int | None:
        """Tunnels that are up now; None when nobody says."""
        ...

    async def stop(self) -> None: ...


@dataclass(slots=True)
class Progress:
    """How far the demo is; the display reads it."""

    ledger: Ledger = field(default_factory=Ledger)
    began: float = field(default_factory=time.monotonic)
    connector: str = "starting"
    tunnels: int | None = None
    recovery_s: float = math.inf
    restart_s: float = math.inf
    remarks: list[str] = field(default_factory=list)

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def faults(self) -> list[str]:
        found = self.ledger.faults()
        served = {push.rpartition("/")[0] for push in self.ledger.acknowledged}
        found += [
            f"{name}: no push was acknowledged" for name in (*OTLP_SENDERS, *REMOTE_WRITE_SENDERS) if name not in served
        ]
        if math.isinf(self.recovery_s):
            found.append("no push was acknowledged after the connector had been started again")
        return found


def basic(username: str, password: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


async def run(passage: Passage, folder: Path, seconds: float, progress: Progress) -> None:
    """The whole course; at the end `progress` knows everything.

    Raises:
        DemoError: something did not start, or ended by itself.
    """
    port_file = folder / "receiver.port"
    receiver = await start_module(folder, "receiver", "demo.receiver", str(port_file))
    async with asyncio.TaskGroup() as tasks, _stopping(receiver):
        tasks.create_task(receiver.follow(progress.ledger.record), name="follow-receiver")
        port = await wait_for_port_file(port_file, receiver)
        try:
            await passage.start(port)
            progress.connector = "up"
            watch = tasks.create_task(_watch_tunnels(passage, progress), name="watch-tunnels")
            try:
                await _push(passage, folder, seconds, progress, tasks)
            finally:
                watch.cancel()
        finally:
            await passage.stop()


async def _push(passage: Passage, folder: Path, seconds: float, progress: Progress, tasks: asyncio.TaskGroup) -> None:
    """From the senders' start to their end."""
    async with contextlib.AsyncExitStack() as stack:
        senders = [
            await _start_sender(folder, "otlp", passage.settings(OTLP_PATH, OTLP_SENDERS, 0.1)),
            await _start_sender(
                folder, "remote_write", passage.settings(REMOTE_WRITE_PATH, REMOTE_WRITE_SENDERS, 0.04)
            ),
        ]
        for sender in senders:
            await stack.enter_async_context(_stopping(sender, _SETTLING_S))
            tasks.create_task(sender.follow(progress.ledger.record), name=f"follow-{sender.name}")
        await _first_push(senders, progress.ledger)
        progress.began = time.monotonic()
        await asyncio.sleep(seconds / 2)
        await _fail_over(passage, progress)
        await asyncio.sleep(max(0.0, seconds - progress.elapsed))
        for sender in senders:
            if not sender.is_running:
                raise DemoError(f"{sender.name} ended by itself\n{sender.tail()}")


async def _start_sender(folder: Path, kind: str, settings: SenderSettings) -> Child:
    path = folder / f"{kind}.json"
    write_settings(path, settings)
    return await start_module(folder, kind.replace("_", "-"), f"demo.{kind}_sender", str(path))


async def _first_push(senders: list[Child], ledger: Ledger) -> None:
    deadline = time.monotonic() + _FIRST_PUSH_S
    while not ledger.acknowledged:
        if ended := [sender for sender in senders if not sender.is_running]:
            raise DemoError(f"{ended[0].name} ended by itself\n{ended[0].tail()}")
        if time.monotonic() > deadline:
            raise DemoError(f"no push was acknowledged within {_FIRST_PUSH_S:.0f} s: {dict(ledger.reasons)}")
        await asyncio.sleep(0.05)


async def _fail_over(passage: Passage, progress: Progress) -> None:
    """Kills the connector, starts it again, and finds out how long until pushes flowed."""
    await passage.kill_connector()
    progress.connector, progress.tunnels = "killed", None
    progress.remark("the connector got SIGKILL")
    await asyncio.sleep(_AWAY_S)
    progress.connector = "starting"
    started = time.monotonic()
    up = await passage.restart_connector()
    progress.connector = "up"
    first = await _acknowledged_after(progress.ledger, started)
    if first is not None:
        progress.recovery_s, progress.restart_s = max(0.0, first - up), first - started
        progress.remark(
            f"the connector was started again: up after {up - started:.2f} s, "
            f"the first push was acknowledged {progress.recovery_s:.2f} s later"
        )


async def _acknowledged_after(ledger: Ledger, moment: float, timeout: float = 20.0) -> float | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        first = ledger.first_acknowledged_after(moment)
        if first is not None:
            return first
        await asyncio.sleep(0.02)
    return None


async def _watch_tunnels(passage: Passage, progress: Progress) -> None:
    while True:
        progress.tunnels = await passage.tunnels()
        await asyncio.sleep(0.25)


@contextlib.asynccontextmanager
async def _stopping(child: Child, patience: float = 8.0) -> typing.AsyncIterator[None]:
    try:
        yield
    finally:
        await child.stop(patience)
