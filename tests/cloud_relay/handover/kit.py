"""Two relays in one process, of which one hands over to the other: real sockets, a channel, and no second process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from cloud_relay.handover.arriving import Arriving
from cloud_relay.handover.passing import VARIABLE, Passed
from cloud_relay.handover.predecessor import tell_failure
from shared.config import read_config
from shared.launch import Launcher
from shared.process import StopRequest
from shared.tasks import cancel, spawn
from tests.cloud_relay.connector_double import ConnectorDouble, attached
from tests.cloud_relay.test_app import World

Play = Callable[[Passed], Awaitable[None]]


class Here:
    """A Launcher, and the process that it starts: inside this one. `play` is what it does instead of serving."""

    def __init__(self, path: Path, play: Play | None = None) -> None:
        self.command = ["cloud-relay"]
        self.is_detached = False
        self.has_children = False
        self.app: RelayApp | None = None
        self.stop_request = StopRequest()
        self.launched = 0
        self._path = path
        self._play = play or self._serve
        self._task: asyncio.Task[None] | None = None
        self._code: int | None = None

    def launch(self, variables: Mapping[str, str], descriptors: Sequence[int]) -> Here:
        """See Launcher."""
        self.launched += 1
        copies = {number: os.dup(number) for number in descriptors}
        given = orjson.loads(variables[VARIABLE])
        given["channel"], given["control"] = copies[given["channel"]], copies[given["control"]]
        given["sockets"] = {str(copies[int(number)]): name for number, name in given["sockets"].items()}
        passed = Passed.from_environment({VARIABLE: orjson.dumps(given).decode()})
        assert passed is not None
        self._code = None
        self._task = spawn(self._run(passed), "the new process", lambda _name, _error: None)
        return self

    async def _run(self, passed: Passed) -> None:
        try:
            passed.channel.send({"say": "hello", "pid": 0, "version": "new"})
            await self._play(passed)
        except Exception as error:  # noqa: BLE001  # as the program does it
            tell_failure(passed.channel, error)
            self._code = 1
        else:
            self._code = 0
        finally:
            if self._code is None:
                self._code = -9
            passed.channel.close()
            passed.control.close()
            passed.inherited.close()

    async def _serve(self, passed: Passed) -> None:
        self.app = app = RelayApp(self._path, read_config(self._path, RelayConfig), None, Arriving(passed))
        try:
            await app.start(self.stop_request)
            await self.stop_request.is_wanted.wait()
            await app.drain()
        finally:
            await app.stop()

    # --- what is asked of a process

    def poll(self) -> int | None:
        return self._code

    def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def hold_signals(self) -> None:
        """Those of this process are the tests'."""

    def end_children(self) -> None:
        self.stop_request.is_wanted.set()

    async def close(self) -> None:
        await cancel(self._task)


@contextlib.contextmanager
def launched_here(world: World, play: Play | None = None) -> Iterator[Here]:
    """What `upgrade` of the relay starts from now on."""
    here = Here(world.path, play)
    world.app.leaving._launcher = cast(Launcher, here)  # it is an argument; the world made the app
    yield here


@contextlib.asynccontextmanager
async def replaced(world: World, old: ConnectorDouble, port: int) -> AsyncIterator[list[ConnectorDouble]]:
    """A connector that opens a new tunnel when it is asked to, as ours does. The list has it once it is there."""
    new: list[ConnectorDouble] = []
    leave = asyncio.Event()

    async def keep() -> None:
        await old.replace.wait()
        async with attached(world.pki, port, {"focused-run": "http"}) as double:
            new.append(double)
            await leave.wait()

    task = spawn(keep(), "replacement")
    try:
        yield new
    finally:
        leave.set()
        if not new:
            await cancel(task)
        await asyncio.wait([task], timeout=5)


async def ask(world: World, method: str, url: str, body: Any = None) -> dict[str, Any]:
    """A command at the control socket: of whichever process listens there."""
    from shared.control import control_request

    return await control_request(world.app.config.state_dir / "control.sock", method, url, body)
