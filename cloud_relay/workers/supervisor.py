"""The parent of a relay's workers: it binds the ports, starts the workers, and starts anew those that die.

It serves nothing itself, so there is little that could end it. What all workers need is held here once: the listening
sockets, of which each worker has a copy, so that none is lost with a worker; and the lock of the state.

    STARTING ─▶ all workers are ready ─▶ SERVING ─▶ SIGTERM ─▶ each worker drains ─▶ over
                one fails: all end, its exit code         one dies or hangs: another one, after a pause
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from cloud_relay.identity.store import StateLock
from cloud_relay.loading import check_state
from cloud_relay.workers.bound import BoundPorts
from cloud_relay.workers.passing import outfit
from cloud_relay.workers.place import LOOK, Worker, shown
from shared.backoff import Backoff
from shared.channel import Channel, Message
from shared.config import ConfigError
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited
from shared.logs import get_logger
from shared.service_manager import ServiceManager
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from shared.process import StopRequest

END_GRACE: Final = 5.0
"""Seconds that a worker may take to end at once."""

LIVED: Final = 10.0
"""Seconds that a worker must have lived for the next pause to be short again."""

LONGEST_PAUSE: Final = 5.0
"""Seconds until a worker that dies at once is started again, at most."""

STOP_GRACE: Final = 10.0
"""Seconds that the workers' ends may take beyond what the config gives their pushes."""

_OF_THIS_PROCESS: Final = frozenset({
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
})  # fmt: skip
"""Variables by which a service manager speaks to this process alone."""

log = get_logger("relay.workers")


class Supervisor:
    """A Program (see shared.process). `command` is what a worker runs; `inherited` are sockets of a service manager.

    `read` gives the config as it is now, which a worker that starts reads, too. ConfigError, CommandError.
    """

    def __init__(
        self,
        config: RelayConfig,
        workers: int,
        command: Sequence[str],
        environ: Mapping[str, str],
        inherited: Inherited,
        read: Callable[[], RelayConfig],
        manager: ServiceManager | None = None,
    ) -> None:
        self.workers = [Worker(number) for number in range(workers)]
        self._config = config
        self._command = list(command)
        self._environ = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
        self._ports = BoundPorts(inherited)
        self._read = read
        self._manager = manager or ServiceManager()
        self._lock = StateLock(config.state_dir)
        self._tasks: list[asyncio.Task[None]] = []
        self._started, self._ending = asyncio.Event(), asyncio.Event()
        self._rolled: Worker | None = None
        """The one that is being replaced, by and by, for an upgrade."""
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
        self._config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        await self._ports.bind(self._config)
        self._tasks = [spawn(self._keep(worker), f"worker {worker.number}") for worker in self.workers]
        self._tasks.append(spawn(self._watch(), "silent workers"))
        ready = spawn(self._until_ready(), "all workers are ready")
        stopped = spawn(stop_request.is_wanted.wait(), "stop request")
        try:
            await asyncio.wait((ready, self._failed, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stopped, ready)
        if self._failed.done():
            raise CommandError(
                ExitCode(self._failed.result()), "a worker did not start", "What it said stands above.", "worker-failed"
            )
        self._started.set()
        log.info("all workers serve", workers=len(self.workers))

    async def drain(self) -> None:
        """Let each worker drain; its config bounds the time."""
        self._ending.set()
        await cancel(self._rolling)
        self._rolled = None
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        patience = self.patience - STOP_GRACE / 2
        await asyncio.gather(*(worker.end(patience) for worker in self.workers))

    async def stop(self) -> None:
        """End all workers at once."""
        self._ending.set()
        await cancel(self._rolling)
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGTERM)  # the second one says: at once
        await asyncio.gather(*(worker.end(END_GRACE) for worker in self.workers))
        await cancel(*self._tasks)
        self._ports.close()
        self._lock.release()

    def request_reload(self) -> None:
        """Have every worker read the config again: SIGHUP."""
        with self._manager.reloading():
            for worker in self.workers:
                worker.signal(signal.SIGHUP)

    def describe(self) -> str:
        """See Program."""
        serving = sum(worker.is_ready.is_set() for worker in self.workers)
        return f"{serving} of {len(self.workers)} workers serve"

    @property
    def patience(self) -> float:
        """See Program."""
        drain = self._config.drain
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
            if worker is self._rolled and worker.is_closed and code == 0:
                continue  # it has left, as it was asked to
            log.error("a worker has ended: another one takes its place", worker=worker.number, **shown(code))
            if loop.time() - began > LIVED:
                pauses.reset()
            await asyncio.sleep(next(pauses))
            await self._read_again()

    async def _run(self, worker: Worker) -> int:
        """Run it once; its exit code."""
        channel, theirs = Channel.pair()
        worker.begins(channel)
        channel.start(asyncio.get_running_loop(), lambda said, sock: self._on_message(worker, said, sock), lambda: None)
        try:
            with theirs:
                given = outfit(worker.number, len(self.workers), theirs, self._ports.sockets, self._config.state_dir)
                worker.process = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env={**self._environ, **given.variables},
                    pass_fds=tuple(given.descriptors),
                    start_new_session=True,
                )
            return await process.wait()
        except OSError as error:
            log.error("a worker cannot be started", worker=worker.number, command=self._command[0], cause=str(error))
            return ExitCode.FAILED
        finally:
            worker.ends()

    async def _watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK)
            for worker in self.workers:
                worker.look()

    # --- one after the other

    async def _roll(self) -> None:
        """Have each worker replaced by a new process, of what is installed now; the one that is asked comes last.

        A worker that drains takes no more connections; those that come are the others', and wait for none of them.
        """
        await self._started.wait()
        if not await self._read_again():
            return
        for worker in reversed(self.workers):
            self._rolled = worker
            log.info("a worker is replaced", worker=worker.number)
            worker.is_ready.clear()
            worker.say({"say": "leave"})
            await worker.is_ready.wait()
        self._rolled = None
        self._ports.keep_only(self._config)
        log.info("all workers are replaced", workers=len(self.workers))

    async def _read_again(self) -> bool:
        """Have what a worker that starts now will ask for; whether that can be had."""
        try:
            config = await asyncio.to_thread(self._read)
            check_state(config.state_dir, self._config.state_dir)
            await self._ports.bind(config)
        except (ConfigError, CommandError) as error:
            log.error("the config cannot be used by a worker that starts now", cause=str(error))
            return False
        self._config = config
        return True

    # --- what they say

    def _note_closed(self) -> None:
        """Where no worker has senders any more, they need not wait for each other."""
        if all(one.is_closed or not one.is_running for one in self.workers):
            for one in self.workers:
                one.say({"say": "all-closed"})

    def _on_message(self, worker: Worker, said: Message, sock: socket.socket | None) -> None:
        worker.heard()
        if said["say"] == "ready":
            worker.serves()
        elif said["say"] == "closed":
            worker.is_closed = True
            if worker is self._rolled:
                worker.say({"say": "all-closed"})
            else:
                self._note_closed()
        elif said["say"] == "roll" and (self._rolling is None or self._rolling.done()):
            self._rolling = spawn(self._roll(), "rolling")
        elif said["say"] == "stop":
            self._stop_request()
        elif said["say"] == "pass" and sock is not None:
            self._pass(worker, said, sock)
        elif sock is not None:
            sock.close()

    def _pass(self, worker: Worker, said: Message, sock: socket.socket) -> None:
        """Give a connection to the worker that it asks for; to the one that has it, where that one takes none."""
        other = self.workers[said["to"]] if said["to"] < len(self.workers) else worker
        taker = other if other.is_ready.is_set() and other.can_take else worker
        if taker.channel is not None and taker.can_take:
            taker.channel.send({"say": "take", "ends": said["ends"], "name": said["name"]}, sock)
        else:
            sock.close()
