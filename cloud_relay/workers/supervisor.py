"""The parent of a relay's workers: it binds the ports, starts the workers, and starts anew those that die.

It serves nothing itself, so there is little that could end it. What all workers need is held here once: the listening
sockets, of which each worker has a copy, so that none is lost with a worker; the lock of the state; and the config,
which nobody else reads: workers start with what was read here, and take what comes later together, or not at all.

    STARTING ─▶ all workers are ready ─▶ SERVING ─▶ SIGTERM ─▶ each worker drains ─▶ over
                one fails: all end, its exit code         one dies or hangs: another one, after a pause
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cloud_relay.config import RelayConfig, find_changes
from cloud_relay.identity.store import StateLock
from cloud_relay.loading import check_state, load
from cloud_relay.workers.agreement import Agreement, capped
from cloud_relay.workers.bound import BoundPorts
from cloud_relay.workers.passing import FOLDER
from cloud_relay.workers.place import LOOK, Worker, shown
from cloud_relay.workers.rolling import Rolling, Stage
from cloud_relay.workers.starting import Starter
from shared.backoff import Backoff
from shared.channel import Message
from shared.config import Loaded
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited
from shared.logs import get_logger
from shared.outcome import Outcome
from shared.reload import Change, OnChange, ReloadWatcher
from shared.reloading import Reloader
from shared.service_manager import ServiceManager
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from shared.process import StopRequest

END_GRACE: Final = 5.0
"""Seconds that a worker may take to end at once."""

LIVED: Final = 10.0
"""Seconds that a worker must have lived for the next pause to be short again."""

LONGEST_PAUSE: Final = 5.0
"""Seconds until a worker that dies at once is started again, at most."""

STOP_GRACE: Final = 10.0
"""Seconds that the workers' ends may take beyond what the config gives their pushes."""

UPGRADING: Final = "an upgrade is under way: the config is read again when it is through"

log = get_logger("relay.workers")


class Supervisor:
    """A Program (see shared.process). `command` is what a worker runs; `inherited` are sockets of a service manager."""

    def __init__(
        self,
        path: Path,
        loaded: Loaded[RelayConfig],
        workers: int,
        command: Sequence[str],
        environ: Mapping[str, str],
        inherited: Inherited,
        manager: ServiceManager | None = None,
    ) -> None:
        self.workers = [Worker(number) for number in range(workers)]
        self._path = path
        self._loaded = loaded
        """What workers start with."""
        state_dir = loaded.config.state_dir
        self._starter = Starter(command, environ, workers, state_dir)
        self._ports = BoundPorts(inherited)
        self._manager = manager or ServiceManager()
        self._lock = StateLock(state_dir)
        self._agreement = Agreement(state_dir / FOLDER)
        self._reloader = Reloader(
            path, loaded, RelayConfig, self._apply, get_logger("relay"), self._watcher, told=self._reloading
        )
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[Any]] = []
        self._started, self._ending = asyncio.Event(), asyncio.Event()
        self._upgrade: Rolling | None = None
        self._rolling: asyncio.Task[None] | None = None
        self._stop_request: Callable[[], None] = lambda: None
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Supervisor of {self.workers}>"

    # --- Program

    async def start(self, stop_request: StopRequest) -> None:
        """Bind all ports, start all workers, and return when they serve. CommandError; of a worker that fails, with
        its exit code."""
        self._stop_request = stop_request
        self._loaded.config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        self._agreement.tidy()
        self._reloader.prime()
        await self._ports.bind(self._loaded.config)
        self._tasks = [spawn(self._keep(worker), f"worker {worker.number}") for worker in self.workers]
        self._tasks.append(spawn(self._watch(), "silent workers"))
        ready = spawn(self._until_ready(), "all workers are ready")
        stopped = spawn(stop_request.is_wanted.wait(), "stop request")
        try:
            await asyncio.wait((ready, self._failed, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stopped, ready)
        if self._failed.done():
            cause = next((f": {one.failure['title']}" for one in self.workers if one.failure), "")
            raise CommandError(
                ExitCode(self._failed.result()), f"a worker did not start{cause}", "What it said stands above.",
                "worker-failed",
            )  # fmt: skip
        self._started.set()
        self._tasks.append(spawn(self._reloader.watch(), "reload watcher"))
        log.info("all workers serve", workers=len(self.workers))

    async def drain(self) -> None:
        """Let each worker drain; its config bounds the time."""
        self._ending.set()
        await cancel(self._rolling)
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        patience = self.patience - STOP_GRACE / 2
        await asyncio.gather(*(worker.end(patience) for worker in self.workers))

    async def stop(self) -> None:
        """End all workers at once."""
        self._ending.set()
        await cancel(self._rolling)
        for worker in self.workers:
            worker.signal(signal.SIGTERM)  # enough for one that has only begun
            worker.signal(signal.SIGINT)  # at once
        await asyncio.gather(*(worker.end(END_GRACE) for worker in self.workers))
        await cancel(*self._tasks)
        self._ports.close()
        self._lock.release()

    def request_reload(self) -> None:
        """Read the config again soon, and have all workers use it: SIGHUP."""
        self._reloader.request()

    def describe(self) -> str:
        """See Program."""
        serving = sum(worker.is_ready.is_set() for worker in self.workers)
        replaced = f", {self._upgrade.sentence()}" if self._upgrade is not None and self._is_rolling else ""
        return f"{serving} of {len(self.workers)} workers serve{replaced}"

    @property
    def patience(self) -> float:
        """See Program."""
        drain = self._loaded.config.drain
        return drain.delay + 2 * drain.timeout + STOP_GRACE

    async def _until_ready(self) -> None:
        for worker in self.workers:
            await worker.is_ready.wait()

    # --- one worker

    async def _keep(self, worker: Worker) -> None:
        """Have it run, for ever."""
        loop = asyncio.get_running_loop()
        pauses = Backoff(cap=LONGEST_PAUSE)
        while not self._ending.is_set():
            began = loop.time()
            code = await self._run(worker)
            self._note_closed()
            if self._ending.is_set():
                return
            if not worker.has_served:
                if not self._failed.done():
                    self._failed.set_result(code if code in set(ExitCode) and code else ExitCode.FAILED)
                return
            if worker.is_leaving and worker.is_closed and code == 0:
                continue  # as it was asked to
            log.error("a worker has ended: another one takes its place", worker=worker.number, **shown(code))
            if loop.time() - began > LIVED:
                pauses.reset()
            await asyncio.sleep(next(pauses))

    async def _run(self, worker: Worker) -> int:
        """Run it once; its exit code."""
        loaded = self._loaded
        try:
            return await self._starter.run(
                worker, loaded.edition, self._ports.sockets, lambda said, sock: self._on_message(worker, said, sock)
            )
        finally:
            worker.ends()
            self._agreement.ended(worker)

    async def _watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK)
            for worker in self.workers:
                worker.look()

    # --- one config for all

    async def _apply(self, loaded: Loaded[RelayConfig]) -> Outcome:
        """Have all workers use it, or none."""
        if self._is_rolling:
            self._reloader.request()
            return Outcome.refused([UPGRADING])
        async with self._changing:
            ready = [one for one in self.workers if one.is_ready.is_set()]
            outcome = await (self._agreement.put(ready, loaded.edition) if ready else self._try_alone(loaded))
            if outcome.is_taken:
                self._loaded = loaded
                self._end_old()
            if not ready:
                self.settle()
        return outcome

    async def _try_alone(self, loaded: Loaded[RelayConfig]) -> Outcome:
        """Where no worker serves that could try it, maybe because of the config in force: a rehearsal finds out."""
        try:
            check_state(loaded.config.state_dir, self._loaded.config.state_dir)
            await self._ports.bind(loaded.config)
            await self.rehearse(loaded)
        except CommandError as error:
            return (Outcome.invalid if error.exit_code == ExitCode.CONFIG else Outcome.refused)([error])
        return Outcome.taken(find_changes(self._loaded.config, loaded.config))

    def _end_old(self) -> None:
        for worker in self.workers:
            self._end_if_old(worker)

    def _end_if_old(self, worker: Worker) -> None:
        """One that has come to serve while the others took a new config begins anew, with that."""
        if worker.is_ready.is_set() and worker.edition is not self._loaded.edition:
            log.warning("a worker has begun with an older config, and begins anew", worker=worker.number)
            worker.signal(signal.SIGTERM)

    def _watcher(self, paths: Callable[[], Iterable[Path]], on_change: OnChange) -> ReloadWatcher:
        """What has changed during an upgrade is read once that is through."""

        async def when_through(change: Change) -> None:
            if self._rolling is not None:
                await asyncio.wait((self._rolling,))
            await on_change(change)

        return ReloadWatcher(paths, when_through)

    @contextmanager
    def _reloading(self) -> Iterator[None]:
        with self._manager.reloading():
            yield
        last = self._reloader.last
        if last is not None and not last.is_taken:
            for worker in self.workers:
                worker.say({"say": "refused", **_told(last)})

    async def _reload_for(self, worker: Worker, number: int) -> None:
        if self._is_rolling:
            self._reloader.request()
            outcome = Outcome.refused([UPGRADING])
        else:
            outcome = await self._reloader.reload()
        if number:
            worker.say({"say": "reloaded", "of": number, **_told(outcome)})

    # --- one after the other: what an upgrade needs (see `rolling.Crew`)

    async def read_anew(self) -> Loaded[RelayConfig]:
        await self._started.wait()
        async with self._changing:
            loaded = await asyncio.to_thread(load, self._path)
            check_state(loaded.config.state_dir, self._loaded.config.state_dir)
            await self._ports.bind(loaded.config)
        return loaded

    async def rehearse(self, loaded: Loaded[RelayConfig]) -> str:
        return await self._starter.rehearse(loaded.edition)

    def put(self, loaded: Loaded[RelayConfig]) -> Loaded[RelayConfig]:
        before, self._loaded = self._loaded, loaded
        return before

    def settle(self) -> None:
        self._ports.keep_only(self._loaded.config)

    def tell(self, upgrade: dict[str, Any]) -> None:
        for worker in self.workers:
            worker.say({"say": "upgrade", "upgrade": upgrade})

    async def _roll(self, upgrade: Rolling) -> None:
        await upgrade.run()
        if upgrade.stage is Stage.DONE:
            self._reloader.note(Outcome.taken(()), self._loaded)
        elif upgrade.replaced:  # some have the config that was read then, and others the one before
            self._reloader.request()
        else:  # whoever died meanwhile may have begun with the one that is not to be
            self._end_old()

    @property
    def _is_rolling(self) -> bool:
        return self._rolling is not None and not self._rolling.done()

    # --- what they say

    def _note_closed(self) -> None:
        """Where no worker has senders any more, they need not wait for each other."""
        if all(one.is_closed or not one.is_running for one in self.workers):
            for one in self.workers:
                one.say({"say": "all-closed"})

    def _on_message(self, worker: Worker, said: Message, sock: socket.socket | None) -> None:
        worker.heard()
        word = said["say"]
        if word == "pass" and sock is not None:
            self._pass(worker, said, sock)
            return
        if sock is not None:
            sock.close()
        if word in {"tried", "used"}:
            self._agreement.heard(worker, said)
        elif word == "failed":
            worker.failure = said["problem"]
        elif word == "ready":
            self._ready(worker)
        elif word == "closed":
            self._closed(worker)
        else:
            self._asked(worker, said)

    def _ready(self, worker: Worker) -> None:
        worker.serves()
        if self._upgrade is not None:
            worker.say({"say": "upgrade", "upgrade": self._upgrade.describe()})
        if not self._changing.locked() and not self._is_rolling:
            self._end_if_old(worker)

    def _closed(self, worker: Worker) -> None:
        worker.is_closed = True
        if worker.is_leaving:
            worker.say({"say": "all-closed"})
        else:
            self._note_closed()

    def _asked(self, worker: Worker, said: Message) -> None:
        """Something is wanted of all of them."""
        word = said["say"]
        if word == "roll" and not self._is_rolling:
            self._upgrade = Rolling(self, self._upgrade.number + 1 if self._upgrade is not None else 1)
            self._rolling = spawn(self._roll(self._upgrade), "rolling")
        elif word == "reload":
            spawn(self._reload_for(worker, said["of"]), "reload")
        elif word == "stop":
            self._stop_request()

    def _pass(self, worker: Worker, said: Message, sock: socket.socket) -> None:
        """Give a connection to the worker that it asks for; to the one that has it, where that one takes none."""
        other = self.workers[said["to"]] if said["to"] < len(self.workers) else worker
        taker = other if other.is_ready.is_set() and other.can_take else worker
        if taker.channel is not None and taker.can_take:
            taker.channel.send({"say": "take", "ends": said["ends"], "name": said["name"]}, sock)
        else:
            sock.close()


def _told(outcome: Outcome) -> Message:
    """What a reload came to, for a message."""
    return {
        "taken": outcome.is_taken, "invalid": outcome.is_invalid, "restart": outcome.needs_a_restart,
        "lines": capped(outcome.lines),
    }  # fmt: skip
