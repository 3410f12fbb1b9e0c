"""What the supervisor makes of workers that do not start, that die, that hang, and that are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.config import RelayConfig
from cloud_relay.loading import load
from cloud_relay.workers import place, supervisor
from cloud_relay.workers.bound import BoundPorts
from cloud_relay.workers.supervisor import Supervisor
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening
from shared.process import StopRequest
from tests.support.ends import until
from tests.support.ports import free_port

WORKER = """
import json, os, pathlib, signal, socket, sys
given = json.loads(os.environ["QANAT_WORKER"])
folder, number = pathlib.Path(sys.argv[1]), given["number"]
with open(folder / "started", "a") as log:
    log.write(f"{number}\\n")
if (folder / "broken").exists():
    sys.exit(int((folder / "broken").read_text()))
channel = socket.socket(fileno=given["channel"])
for number in given["sockets"]:
    os.close(int(number))
say = lambda word: channel.send(json.dumps({"say": word}).encode())
say("ready")
while data := channel.recv(65536):
    said = json.loads(data)["say"]
    if said == "leave":
        say("closed")
    elif said == "all-closed":
        sys.exit(0)
"""
"""A worker that does nothing but what its supervisor sees of it."""


class Ground:
    """A folder, a config, and the supervisor of two workers."""

    def __init__(self, folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.path = path
        monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.3)

    def supervisor(self, *command: str) -> Supervisor:
        argv = command or (sys.executable, "-ISc", WORKER, str(self.folder))
        return Supervisor(self.config(), 2, argv, os.environ, Inherited(), self.config)

    def config(self) -> RelayConfig:
        return load(self.path).config

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        one = self.supervisor()
        try:
            await one.start(StopRequest())
            yield one
        finally:
            await one.stop()

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in (self.folder / "started").read_text().split()]

    def breaks(self, exit_code: int) -> None:
        (self.folder / "broken").write_text(str(exit_code))


@pytest.fixture
def ground(
    tmp_path: Path, write_config: Callable[[Any], Path], relay_document: Any, monkeypatch: pytest.MonkeyPatch
) -> Ground:
    relay_document["state_dir"] = str(tmp_path / "state")
    return Ground(tmp_path, write_config(relay_document), monkeypatch)


async def test_a_worker_that_cannot_start_ends_the_start_with_its_exit_code(ground: Ground) -> None:
    ground.breaks(3)
    one = ground.supervisor()
    with pytest.raises(CommandError) as caught:
        await one.start(StopRequest())
    await one.stop()
    assert caught.value.exit_code == ExitCode.CONFIG
    assert caught.value.code == "worker-failed"
    assert 1 <= len(ground.starts) <= 2


async def test_a_command_that_is_not_there_ends_the_start(ground: Ground) -> None:
    one = ground.supervisor(str(ground.folder / "nothing"))
    with pytest.raises(CommandError, match="did not start"):
        await asyncio.wait_for(one.start(StopRequest()), 10)
    await one.stop()


async def test_the_state_is_held_and_let_go(ground: Ground) -> None:
    async with ground.running():
        with pytest.raises(CommandError, match="another process holds"):
            await ground.supervisor().start(StopRequest())
    async with ground.running():
        pass


async def test_one_that_dies_is_replaced(ground: Ground) -> None:
    async with ground.running() as one:
        os.kill(pid(one, 1), signal.SIGKILL)
        await until(lambda: len(ground.starts) == 3 and one.workers[1].is_ready.is_set())
        assert ground.starts[-1] == 1


async def test_one_that_hangs_is_ended_and_replaced(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK", 0.05)
    monkeypatch.setattr(place, "SILENCE", 4)
    async with ground.running() as one:
        stopped = pid(one, 0)
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: pid(one, 0) != stopped and one.workers[0].is_ready.is_set())


async def test_an_upgrade_that_brings_a_broken_program_costs_one_worker_and_no_more(ground: Ground) -> None:
    async with ground.running() as one:
        kept = pid(one, 0)
        ground.breaks(3)
        one._on_message(one.workers[0], {"say": "roll"}, None)
        await until(lambda: len(ground.starts) >= 4)
        assert pid(one, 0) == kept
        before = len(ground.starts)
        await asyncio.sleep(0.5)
        assert len(ground.starts) - before < 12  # with a pause between two tries
        (ground.folder / "broken").unlink()
        await until(lambda: pid(one, 0) not in (0, kept) and one.workers[0].is_ready.is_set())


async def test_an_upgrade_has_the_addresses_of_the_config_as_it_is_then(ground: Ground) -> None:
    first, second = free_port(), free_port()
    ground.path.write_text(ground.path.read_text().replace("- listen: 127.0.0.1:0", f"- listen: 127.0.0.1:{first}"))
    async with ground.running() as one:
        ground.path.write_text(ground.path.read_text().replace(str(first), str(second)))
        before = [pid(one, number) for number in (0, 1)]
        one._on_message(one.workers[0], {"say": "roll"}, None)
        await until(lambda: all(pid(one, number) not in (0, before[number]) for number in (0, 1)))
        await until(lambda: not listens(first))
        assert listens(second)


async def test_an_upgrade_to_a_config_that_cannot_be_used_replaces_nobody(ground: Ground) -> None:
    async with ground.running() as one:
        ground.path.write_text("nonsense: true\n")
        one._on_message(one.workers[0], {"say": "roll"}, None)
        await asyncio.sleep(0.3)
        assert len(ground.starts) == 2
        assert one.describe() == "2 of 2 workers serve"


async def test_a_connection_that_no_worker_takes_does_not_wait_for_ever(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MAX_WAITING", 3)
    async with ground.running() as one:
        for worker in one.workers:
            os.kill(worker.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]
        theirs = []
        for _ in range(600):
            ours, other = socket.socketpair()
            theirs.append(other)
            one._on_message(one.workers[0], {"say": "pass", "to": 1, "ends": [], "name": None}, ours)
        assert all(worker.channel is None or worker.channel.waiting <= 3 for worker in one.workers)
        theirs[-1].settimeout(1)
        assert theirs[-1].recv(1) == b""
        for other in theirs:
            other.close()
        for worker in one.workers:
            worker.signal(signal.SIGKILL)


async def test_sockets_of_the_service_manager_that_nobody_wants_are_refused(ground: Ground) -> None:
    stray = socket.create_server(("127.0.0.1", 0))
    ports = BoundPorts(Inherited([Listening("stray", stray)]))
    with pytest.raises(CommandError, match="no listener for what the service manager passed"):
        await ports.bind(ground.config())
    ports.close()
    assert stray.fileno() == -1
    assert not ports.sockets


def pid(one: Supervisor, number: int) -> int:
    process = one.workers[number].process
    return process.pid if process is not None and process.returncode is None else 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
