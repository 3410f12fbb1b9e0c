"""How a worker's process is started: with sockets, a channel, and the config that the supervisor has read."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_relay.handover.successor import refusal_of
from cloud_relay.workers.passing import held, outfit
from cloud_relay.workers.place import shown
from shared.channel import Channel, Message, OnMessage
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger

if TYPE_CHECKING:
    import socket

    from cloud_relay.workers.passing import Outfit
    from cloud_relay.workers.place import Worker
    from shared.config import Edition
    from shared.listeners import Listening

REHEARSAL: Final = 60.0
"""Seconds for a process to find out whether it could serve, on a busy machine."""

LAST_WORDS: Final = 1.0
"""Seconds for what a process has said at its end."""

_OF_THIS_PROCESS: Final = frozenset({
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
})  # fmt: skip
"""Variables by which a service manager speaks to this process alone."""

log = get_logger("relay.workers")


class Starter:
    """Starts processes of `command`, for a relay of so many `workers` with this state."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], workers: int, state_dir: Path) -> None:
        self._command = list(command)
        self._environ = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
        self._workers = workers
        self._state_dir = state_dir

    async def run(self, worker: Worker, edition: Edition, sockets: Sequence[Listening], on_message: OnMessage) -> int:
        """Run a worker from its start to its end; its exit code. `on_message` gets all that it says."""
        channel, theirs = Channel.pair()
        worker.begins(channel, edition)
        is_silent = asyncio.Event()
        channel.start(asyncio.get_running_loop(), on_message, is_silent.set)
        try:
            with theirs, held(edition) as config:
                place = worker.number, self._workers
                worker.process = process = await self._start(
                    outfit(place, theirs, config, sockets, self._state_dir)
                )  # fmt: skip
        except OSError as error:
            log.error("a worker cannot be started", worker=worker.number, command=self._command[0], cause=str(error))
            worker.failure = _not_there(self._command[0], error).problem()
            return ExitCode.FAILED
        try:
            code = await process.wait()
            await _until(is_silent, LAST_WORDS)
        finally:
            await _kill(process)  # cancelled: it began while all others were ended
        return code

    async def rehearse(self, edition: Edition) -> str:
        """Have a process find out whether it could be a worker with this config; its version. CommandError."""
        channel, theirs = Channel.pair()
        said: dict[str, Message] = {}

        def hear(message: Message, sock: socket.socket | None) -> None:
            said[str(message.get("say"))] = message
            if sock is not None:
                sock.close()

        is_silent = asyncio.Event()
        channel.start(asyncio.get_running_loop(), hear, is_silent.set)
        process = None
        try:
            with theirs, held(edition) as config:
                given = outfit((0, self._workers), theirs, config, (), self._state_dir, is_rehearsal=True)
                process = await self._start(given)
            async with asyncio.timeout(REHEARSAL):
                code = await process.wait()
            await _until(is_silent, LAST_WORDS)
        except TimeoutError as error:
            raise CommandError(
                ExitCode.FAILED, f"a new worker could not serve: it did not find out within {REHEARSAL:g} s",
                "Nothing is replaced, and the relay serves on.", "rehearsal-failed",
            ) from error  # fmt: skip
        except OSError as error:
            raise _not_there(self._command[0], error) from error
        finally:
            channel.close()
            if process is not None:
                await _kill(process)
        if "failed" in said:
            raise refusal_of(said["failed"]["problem"], "a new worker could not serve")
        if code or "hello" not in said:
            how = " ".join(f"{name} {value}" for name, value in shown(code).items())
            raise CommandError(
                ExitCode.FAILED, f"a new worker could not serve: it ended with {how}",
                "Nothing is replaced, and the relay serves on. What it said before is in the log.", "rehearsal-failed",
            )  # fmt: skip
        return str(said["hello"]["version"])

    async def _start(self, given: Outfit) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            env={**self._environ, **given.variables},
            pass_fds=tuple(given.descriptors),
            start_new_session=True,
        )


def _not_there(command: str, error: OSError) -> CommandError:
    return CommandError(
        ExitCode.FAILED, f"{command} cannot be started: {error.strerror or error}",
        "Install it where the relay was started from.", "cannot-start",
    )  # fmt: skip


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _until(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
