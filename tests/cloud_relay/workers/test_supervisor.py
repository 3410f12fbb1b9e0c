"""What the supervisor makes of workers that do not start, that die, that hang, and that are replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from cloud_relay.loading import load
from cloud_relay.workers import agreement, place, starting, supervisor
from cloud_relay.workers.bound import BoundPorts
from cloud_relay.workers.supervisor import Supervisor
from shared.channel import MAX_MESSAGE
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening
from shared.process import StopRequest
from tests.support.ends import until
from tests.support.ports import free_port

WORKER = """
import json, os, pathlib, signal, socket, sys, time
given = json.loads(os.environ["QANAT_WORKER"])
folder, number = pathlib.Path(sys.argv[1]), given["number"]
channel = socket.socket(fileno=given["channel"])
say = lambda word, **more: channel.send(json.dumps({"say": word, **more}).encode())
say("hello", version="2.0")
kind = "rehearsed" if given["rehearsal"] else "started"
with open(folder / kind, "a") as log:
    log.write(f"{number}\\n")
broken = [path for path in (folder / f"broken.{kind}", folder / f"broken.{kind}.{number}") if path.exists()]
if broken:
    code = int(broken[0].read_text())
    say("failed", problem={"title": "its libraries do not fit", "code": "no-fit", "exit_code": code})
    sys.exit(code)
if given["rehearsal"]:
    sys.exit(0)
while (folder / f"hesitates.{number}").exists():
    time.sleep(0.01)
config = os.fdopen(given["config"], "rb").read()
(folder / f"config.{number}").write_bytes(config)
for descriptor in given["sockets"]:
    os.close(int(descriptor))
say("ready")
tried = config
while data := channel.recv(65536):
    message = json.loads(data)
    said = message["say"]
    if said == "try":
        tried = (pathlib.Path(given["state_dir"]) / "workers" / "config").read_bytes()
        if (folder / "hangs").exists():
            continue
        refused = (folder / f"refuses.{number}").exists()
        problems = ["it has no such certificate"] if refused else []
        more = {"restart": True} if (folder / f"restarts.{number}").exists() else {}
        say("tried", of=message["of"], problems=problems, changes=["route acme/x added"], invalid=refused, **more)
    elif said == "use":
        (folder / f"config.{number}").write_bytes(tried)
        say("used", of=message["of"], failed=False)
    elif said in ("refused", "reloaded"):
        (folder / f"{said}.{number}").write_text(json.dumps(message))
    elif said == "leave":
        while (folder / "stays").exists():
            time.sleep(0.01)
        say("closed")
    elif said == "all-closed":
        sys.exit(0)
"""
"""A worker that does nothing but what its supervisor sees of it."""


class Ground:
    """A folder, a config, and the supervisor of two workers or more."""

    def __init__(self, folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.path = path
        self.workers = 2
        self._changes = 0
        monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.3)

    def supervisor(self, *command: str) -> Supervisor:
        argv = command or (sys.executable, "-ISc", WORKER, str(self.folder))
        return Supervisor(self.path, load(self.path), self.workers, argv, os.environ, Inherited())

    def change(self) -> str:
        """Have another config in the file; a word that only this one has."""
        self._changes += 1
        word = f"changed-{self._changes}"
        self.path.write_text(f"# {word}\n" + self.path.read_text())
        return word

    def used_by(self, number: int) -> str:
        return (self.folder / f"config.{number}").read_text()

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

    def breaks(self, exit_code: int, kind: str = "started") -> None:
        (self.folder / f"broken.{kind}").write_text(str(exit_code))

    def mend(self) -> None:
        for path in self.folder.glob("broken.*"):
            path.unlink()


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


async def test_one_that_hangs_before_it_serves_is_ended_and_replaced(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOOK", 0.05)
    monkeypatch.setattr(place, "STARTING", 10)
    async with ground.running() as one:
        (ground.folder / "hesitates.1").touch()
        upgrade = await rolled(one)
        assert (upgrade["stage"], upgrade["worker"]) == ("failed", 1)
        await until(lambda: ground.starts.count(1) >= 3)
        assert not one.workers[1].is_ready.is_set()
        (ground.folder / "hesitates.1").unlink()
        await until(one.workers[1].is_ready.is_set)


async def test_a_start_in_which_one_hangs_fails(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK", 0.05)
    monkeypatch.setattr(place, "STARTING", 10)
    (ground.folder / "hesitates.0").touch()
    one = ground.supervisor()
    with pytest.raises(CommandError, match="a worker did not start"):
        await asyncio.wait_for(one.start(StopRequest()), 10)
    await one.stop()


async def test_a_program_that_cannot_serve_is_found_out_before_anybody_leaves(ground: Ground) -> None:
    async with ground.running() as one:
        kept = [pid(one, number) for number in (0, 1)]
        ground.breaks(3, "rehearsed")
        upgrade = await rolled(one)
        assert upgrade["stage"] == "failed"
        assert upgrade["error"]["title"] == "a new worker could not serve: its libraries do not fit"
        assert (upgrade["error"]["code"], upgrade["error"]["exit_code"]) == ("no-fit", 3)
        assert [pid(one, number) for number in (0, 1)] == kept
        assert len(ground.starts) == 2


async def test_a_rehearsal_that_comes_to_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "REHEARSAL", 0.2)
    async with ground.running() as one:
        one._starter._command = [sys.executable, "-ISc", "import time; time.sleep(60)"]
        upgrade = await rolled(one)
        assert "did not find out within 0.2 s" in upgrade["error"]["title"]
        one._starter._command = ["/nowhere/cloud-relay"]
        assert "cannot be started" in (await rolled(one))["error"]["title"]
        monkeypatch.setattr(starting, "REHEARSAL", 10.0)
        one._starter._command = ["/bin/false"]
        assert "it ended with exit_code 1" in (await rolled(one))["error"]["title"]
        assert len(ground.starts) == 2


async def test_a_program_that_can_serve_by_its_rehearsal_only_costs_one_worker_and_no_more(ground: Ground) -> None:
    async with ground.running() as one:
        kept, before = pid(one, 0), ground.used_by(0)
        ground.breaks(3)
        word = ground.change()
        upgrade = await rolled(one)
        assert (upgrade["stage"], upgrade["replaced"], upgrade["worker"]) == ("failed", 0, 1)
        assert "worker 1 did not come to serve: its libraries do not fit" in upgrade["error"]["title"]
        assert pid(one, 0) == kept
        starts = len(ground.starts)
        await asyncio.sleep(0.5)
        assert len(ground.starts) - starts < 12  # with a pause between two tries
        ground.mend()
        await until(one.workers[1].is_ready.is_set)
        assert ground.used_by(1) == before, "what the other one uses, too"
        assert word not in before


async def test_who_waits_for_an_upgrade_hears_of_each_step(ground: Ground) -> None:
    async with ground.running() as one:
        steps: list[tuple[Any, ...]] = []
        one.tell = lambda upgrade: steps.append(  # type: ignore[method-assign]  # to see what is told
            (upgrade["stage"], upgrade["worker"], upgrade["replaced"])
        )
        upgrade = await rolled(one)
        assert steps == [
            ("rehearsing", None, 0), ("leaving", 1, 0), ("starting", 1, 0), ("leaving", 0, 1), ("starting", 0, 1),
            ("done", None, 2),
        ]  # fmt: skip
        assert upgrade["version"] == "2.0"
        assert (await rolled(one))["number"] == upgrade["number"] + 1


async def test_a_reload_is_taken_by_all(ground: Ground) -> None:
    async with ground.running() as one:
        word = ground.change()
        outcome = await one._reloader.reload()
        assert outcome.is_taken
        assert outcome.lines == ("route acme/x added",)
        assert all(word in ground.used_by(number) for number in (0, 1))
        assert not (ground.folder / "state" / "workers" / "config").exists()


async def test_a_reload_that_one_refuses_is_taken_by_none_and_its_end_names_who_and_why(ground: Ground) -> None:
    async with ground.running() as one:
        (ground.folder / "refuses.1").touch()
        word = ground.change()
        one._on_message(one.workers[0], {"say": "reload", "of": 7}, None)
        told = ground.folder / "reloaded.0"
        await until(lambda: told.exists() and bool(told.read_text()))
        answer = json.loads(told.read_text())
        assert (answer["of"], answer["taken"], answer["invalid"], answer["restart"]) == (7, False, True, False)
        assert answer["lines"] == ["worker 1: it has no such certificate"]
        await until((ground.folder / "refused.1").exists)
        assert not any(word in ground.used_by(number) for number in (0, 1))
        (ground.folder / "refuses.0").touch()
        (ground.folder / "restarts.0").touch()
        outcome = await one._reloader.reload()
        assert outcome.lines == ("it has no such certificate",)
        assert outcome.needs_a_restart


async def test_one_that_does_not_try_a_reload_is_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "TRY_PATIENCE", 0.2)
    async with ground.running() as one:
        (ground.folder / "hangs").touch()
        outcome = await one._reloader.reload()
        assert outcome.lines == tuple(f"worker {number} did not try it in 0.2 s" for number in (0, 1))


async def test_one_that_dies_comes_back_with_the_config_in_force_and_no_newer_one(ground: Ground) -> None:
    async with ground.running() as one:
        word = ground.change()
        await one._reloader.reload()
        ground.path.write_text("nonsense: true\n")
        os.kill(pid(one, 1), signal.SIGKILL)
        (ground.folder / "config.1").unlink()
        await until(lambda: len(ground.starts) == 3 and one.workers[1].is_ready.is_set())
        assert word in ground.used_by(1)
        assert "nonsense" not in ground.used_by(1)


async def test_one_that_came_to_serve_while_the_others_took_a_config_begins_anew(ground: Ground) -> None:
    async with ground.running() as one:
        late = one.workers[1]
        late.is_ready.clear()
        word = ground.change()
        assert (await one._reloader.reload()).is_taken
        assert word not in ground.used_by(1)
        one._on_message(late, {"say": "ready"}, None)
        await until(lambda: len(ground.starts) == 3 and late.is_ready.is_set())
        assert word in ground.used_by(1)


async def test_no_reload_is_taken_during_an_upgrade_and_it_is_made_up_for(ground: Ground) -> None:
    async with ground.running() as one:
        one._on_message(one.workers[0], {"say": "roll"}, None)
        word = ground.change()
        outcome = await one._reloader.reload()
        assert outcome.lines == (supervisor.UPGRADING,)
        await until(lambda: all(word in ground.used_by(number) for number in (0, 1)))


async def test_what_changes_during_an_upgrade_is_read_when_it_is_through_and_nobody_is_told_of_a_refusal(
    ground: Ground,
) -> None:
    async with ground.running() as one:
        one._on_message(one.workers[0], {"say": "roll"}, None)
        one.request_reload()
        await until(lambda: one.workers[1].is_leaving)
        word = ground.change()
        await until(lambda: all(word in ground.used_by(number) for number in (0, 1)))
        assert not list(ground.folder.glob("refused.*"))
        assert one._reloader.last is not None
        assert one._reloader.last.is_taken


async def test_an_upgrade_that_fails_half_way_leaves_one_config_if_the_others_can_take_it(ground: Ground) -> None:
    ground.workers = 3
    async with ground.running() as one:
        (ground.folder / "refuses.0").touch()
        word = ground.change()
        assert not (await one._reloader.reload()).is_taken
        (ground.folder / "refuses.0").unlink()
        ground.breaks(3, "started.1")
        upgrade = await rolled(one)
        assert (upgrade["stage"], upgrade["replaced"], upgrade["worker"]) == ("failed", 1, 1)
        assert word in ground.used_by(2)
        await until(lambda: word in ground.used_by(0))


async def test_one_that_dies_during_an_upgrade_that_fails_goes_back_with_the_others(ground: Ground) -> None:
    async with ground.running() as one:
        before = ground.used_by(0)
        ground.breaks(3, "started.1")
        word = ground.change()
        (ground.folder / "stays").touch()
        one._on_message(one.workers[0], {"say": "roll"}, None)
        await until(lambda: one.workers[1].is_leaving)
        os.kill(pid(one, 0), signal.SIGKILL)
        await until(lambda: word in ground.used_by(0) and one.workers[0].is_ready.is_set())
        (ground.folder / "stays").unlink()
        await until(lambda: one._upgrade is not None and one._upgrade.stage.is_over)
        await until(lambda: ground.used_by(0) == before)


async def test_where_no_worker_can_start_with_the_config_in_force_the_next_one_is_taken_all_the_same(
    ground: Ground,
) -> None:
    async with ground.running() as one:
        ground.breaks(3)
        for number in (0, 1):
            os.kill(pid(one, number), signal.SIGKILL)
        await until(lambda: len(ground.starts) > 2 and not any(worker.is_ready.is_set() for worker in one.workers))
        ground.breaks(3, "rehearsed")
        word = ground.change()
        outcome = await one._reloader.reload()
        assert outcome.is_invalid
        assert "its libraries do not fit" in outcome.lines[0]
        (ground.folder / "broken.rehearsed").unlink()
        assert (await one._reloader.reload()).is_taken
        ground.mend()
        await until(lambda: all(worker.is_ready.is_set() for worker in one.workers))
        await until(lambda: all(word in ground.used_by(number) for number in (0, 1)))


async def test_no_copy_of_a_config_outlives_a_supervisor_that_was_killed(ground: Ground) -> None:
    left = ground.folder / "state" / "workers" / "config"
    left.parent.mkdir(parents=True)
    left.write_text("secret")
    async with ground.running():
        assert not left.exists()


def test_problems_fit_into_a_message_in_whatever_script() -> None:
    lines = agreement.capped(["\N{GRINNING FACE}" * 1000] * 1000)
    assert len(orjson.dumps({"say": "tried", "problems": lines, "changes": []})) < MAX_MESSAGE


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
        upgrade = await rolled(one)
        assert (upgrade["stage"], upgrade["error"]["code"]) == ("failed", "config-invalid")
        assert "nonsense" in upgrade["error"]["title"]
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
        await ports.bind(load(ground.path).config)
    ports.close()
    assert stray.fileno() == -1
    assert not ports.sockets


def pid(one: Supervisor, number: int) -> int:
    process = one.workers[number].process
    return process.pid if process is not None and process.returncode is None else 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def rolled(one: Supervisor) -> dict[str, Any]:
    """What an upgrade came to."""
    one._on_message(one.workers[0], {"say": "roll"}, None)
    assert one._rolling is not None
    assert one._upgrade is not None
    await asyncio.wait_for(asyncio.shield(one._rolling), 20)
    return one._upgrade.describe()
