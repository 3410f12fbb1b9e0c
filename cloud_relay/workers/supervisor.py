"""The parent of a relay's workers: it binds the ports, starts the workers, and starts anew those that die.

It serves nothing itself, so there is little that could end it. What all workers need is held here once: the listening
sockets, of which each worker has a copy, so that none is lost with a worker; and the lock of the state.

    STARTING ─▶ all workers are ready ─▶ SERVING ─▶ SIGTERM ─▶ each worker drains ─▶ over
                one fails: all end, its exit code         one dies: another one, after a pause
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cloud_relay.doors import cannot_listen
from cloud_relay.identity.store import StateLock
from cloud_relay.port_plan import addresses
from cloud_relay.workers.passing import outfit
from shared.backoff import Backoff
from shared.channel import Channel, Message
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, open_sockets
from shared.logs import get_logger
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from shared.process import StopRequest

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


class Worker:
    """One worker's place: its process, and our end of its channel."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.is_ready = asyncio.Event()
        self.has_served = self.is_closed = False

    def __repr__(self) -> str:
        pid = self.process.pid if self.process is not None else None
        return f"<Worker {self.number} pid={pid}{' ready' if self.is_ready.is_set() else ''}>"

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    def say(self, message: Message) -> None:
        """Tell it something, if it is there."""
        if self.channel is not None:
            self.channel.send(message)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is somebody to get it."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """A Program (see shared.process). `command` is what a worker runs; `inherited` are sockets of a service manager."""

    def __init__(
        self,
        config: RelayConfig,
        workers: int,
        command: Sequence[str],
        environ: Mapping[str, str],
        inherited: Inherited,
    ) -> None:
        self.workers = [Worker(number) for number in range(workers)]
        self._config = config
        self._command = list(command)
        self._environ = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
        self._inherited = inherited
        self._sockets: list[Listening] = []
        self._lock = StateLock(config.state_dir)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ending = False
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
        await self._bind()
        self._tasks = [spawn(self._keep(worker), f"worker {worker.number}") for worker in self.workers]
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
        log.info("all workers serve", workers=len(self.workers))

    async def drain(self) -> None:
        """Let each worker drain; its config bounds the time."""
        self._is_ending = True
        await cancel(self._rolling)
        self._rolled = None
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            if worker.process is not None:
                await worker.process.wait()

    async def stop(self) -> None:
        """End all workers at once."""
        self._is_ending = True
        await cancel(self._rolling)
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGTERM)  # the second one says: at once
        await asyncio.gather(*(_ended(worker) for worker in self.workers))
        await cancel(*self._tasks)
        for one in self._sockets:
            one.sock.close()
        self._lock.release()

    def request_reload(self) -> None:
        """Have every worker read the config again: SIGHUP."""
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

    # --- ports

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        for where, listen in addresses(self._config):
            try:
                sockets = await open_sockets(loop, listen.host or None, listen.port, self._inherited, where)
            except OSError as error:
                raise cannot_listen(listen, where, error) from error
            self._sockets += [Listening(where, sock) for sock in sockets]
        self._inherited.close()

    # --- one worker

    async def _keep(self, worker: Worker) -> None:
        """Have it run, for ever."""
        loop = asyncio.get_running_loop()
        pauses = Backoff(cap=LONGEST_PAUSE)
        while True:
            began = loop.time()
            code = await self._run(worker)
            worker.is_ready.clear()
            if self._is_ending:
                return
            if not worker.has_served:
                if not self._failed.done():
                    self._failed.set_result(code if code in set(ExitCode) and code else ExitCode.FAILED)
                return
            if worker is self._rolled:
                continue
            log.error("a worker has ended: another one takes its place", worker=worker.number, **_shown(code))
            if loop.time() - began > LIVED:
                pauses.reset()
            await asyncio.sleep(next(pauses))

    async def _roll(self) -> None:
        """Have each worker replaced by a new process, of what is installed now; the one that is asked comes last.

        A worker that drains takes no more connections; those that come are the others', and wait for none of them.
        """
        for worker in reversed(self.workers):
            self._rolled = worker
            log.info("a worker is replaced", worker=worker.number)
            worker.is_ready.clear()
            worker.say({"say": "leave"})
            await worker.is_ready.wait()
        self._rolled = None
        log.info("all workers are replaced", workers=len(self.workers))

    async def _run(self, worker: Worker) -> int:
        """Run it once; its exit code."""
        channel, theirs = Channel.pair()
        with theirs:
            given = outfit(worker.number, len(self.workers), theirs, self._sockets)
            worker.process = process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environ, **given.variables},
                pass_fds=tuple(given.descriptors),
                start_new_session=True,
            )
        worker.channel = channel
        worker.is_closed = False
        channel.start(asyncio.get_running_loop(), lambda said, sock: self._on_message(worker, said, sock), lambda: None)
        try:
            return await process.wait()
        finally:
            worker.channel = None
            channel.close()

    def _on_message(self, worker: Worker, said: Message, sock: socket.socket | None) -> None:
        if said["say"] == "ready":
            worker.is_ready.set()
            worker.has_served = True
        elif said["say"] == "closed":
            worker.is_closed = True
            if worker is self._rolled:
                worker.say({"say": "all-closed"})
            elif all(one.is_closed or not one.is_running for one in self.workers):
                for one in self.workers:
                    one.say({"say": "all-closed"})
        elif said["say"] == "roll" and (self._rolling is None or self._rolling.done()):
            self._rolling = spawn(self._roll(), "rolling")
        elif said["say"] == "stop":
            self._stop_request()
        elif said["say"] == "pass" and sock is not None:
            other = self.workers[said["to"]] if said["to"] < len(self.workers) else worker
            channel = other.channel if other.is_ready.is_set() else worker.channel
            if channel is not None:
                channel.send({"say": "take", "ends": said["ends"], "name": said["name"]}, sock)
            else:
                sock.close()
        elif sock is not None:
            sock.close()


async def _ended(worker: Worker) -> None:
    process = worker.process
    if process is None or process.returncode is not None:
        return
    try:
        async with asyncio.timeout(5.0):
            await process.wait()
    except TimeoutError:
        worker.signal(signal.SIGKILL)
        await process.wait()


def _shown(code: int) -> dict[str, object]:
    if code < 0:
        return {"signal": signal.Signals(-code).name}
    return {"exit_code": code}
