"""A config that all workers take, or none: each tries it, and only when all can use it, all do.

    supervisor ── "try" ──▶ every worker reads what the supervisor has read, and loads certificates
               ◀─ "tried" ─ with its problems, if there are any
               ── "use" ──▶ in every worker, nothing can fail any more         or ── "forget" ──▶ nothing has changed
               ◀─ "used" ──

The config goes by a file in the state directory, which lasts as long as this does.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from shared.logs import get_logger
from shared.outcome import Outcome

if TYPE_CHECKING:
    from cloud_relay.workers.place import Worker
    from shared.channel import Message
    from shared.config import Edition

FILE: Final = "config"
"""Its name in the folder of the workers' sockets."""

TRY_PATIENCE: Final = 60.0
"""Seconds for a worker to read a config and its certificates, on a busy machine."""

USE_PATIENCE: Final = 15.0
"""Seconds for it to use what it has read. One that takes longer hangs, and begins anew."""

MAX_LINES: Final = 100
MAX_LINE: Final = 300
"""Problems and changes in a message, and characters of each: together they fit, in whatever script."""

log = get_logger("relay.workers")


class Tried(NamedTuple):
    """What a worker makes of a config: why it cannot (see `Outcome` for whose fault that is); or what changes."""

    problems: list[str]
    changes: list[str]
    is_invalid: bool
    needs_a_restart: bool


class Agreement:
    """One at the supervisor. One config at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._number = 0
        self._missing: set[Worker] = set()
        self._tried: dict[Worker, Tried] = {}
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Agreement {self._number}, {len(self._missing)} to come>"

    async def put(self, workers: Sequence[Worker], edition: Edition) -> Outcome:
        """Have these workers use a config. A refusal names who cannot, and why; then nothing has changed anywhere."""
        self._number += 1
        self._tried = {}
        try:
            await asyncio.to_thread(self._write, edition.to_bytes())
            await self._ask(workers, "try", TRY_PATIENCE)
        except OSError as error:
            return Outcome.refused([f"{self._path} cannot be written: {error.strerror or error}"])
        finally:
            self.tidy()
        late = [worker for worker in workers if worker in self._missing]
        problems = _problems(self._tried) + [
            f"worker {one.number} did not try it in {TRY_PATIENCE:g} s" for one in late
        ]
        if problems or not self._tried:
            for worker in workers:
                worker.say({"say": "forget", "of": self._number})
            return Outcome.refused(problems or ["no worker is there to use it: try it again"])._replace(
                is_invalid=any(one.is_invalid for one in self._tried.values()),
                needs_a_restart=any(one.needs_a_restart for one in self._tried.values()),
            )
        changes = next(iter(self._tried.values())).changes  # before one ends
        await self._use(list(self._tried), edition)
        return Outcome.taken(changes)

    def tidy(self) -> None:
        """Leave no copy of a config, nor one of a supervisor that was killed: it is as secret as the config."""
        self._path.unlink(missing_ok=True)

    def heard(self, worker: Worker, said: Message) -> None:
        """A worker has answered: "tried" or "used"."""
        if said["of"] != self._number or worker not in self._missing:
            return
        if said["say"] == "tried":
            needs_a_restart = said.get("restart", False)  # which older workers do not say
            self._tried[worker] = Tried(said["problems"], said["changes"], said["invalid"], needs_a_restart)
        elif said["failed"]:
            return  # as if it hung: it says one thing and does another
        self._missing.discard(worker)
        self._news.set()

    def ended(self, worker: Worker) -> None:
        """A worker is over. The next one in its place begins with what is in force then."""
        self._missing.discard(worker)
        self._tried.pop(worker, None)
        self._news.set()

    # --- within

    async def _use(self, workers: Sequence[Worker], edition: Edition) -> None:
        for worker in workers:
            worker.edition = edition
        await self._ask(workers, "use", USE_PATIENCE)
        for worker in self._missing:
            log.error("a worker does not use the config that it could use, and is ended", worker=worker.number)
            worker.signal(signal.SIGKILL)

    async def _ask(self, workers: Sequence[Worker], word: str, patience: float) -> None:
        """Say it to all, and wait until all have answered or ended; `_missing` are those that have not."""
        self._missing = set(workers)
        for worker in workers:
            worker.say({"say": word, "of": self._number})
        try:
            async with asyncio.timeout(patience):
                while self._missing:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    def _write(self, data: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.unlink(missing_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def _problems(tried: dict[Worker, Tried]) -> list[str]:
    """All problems; those that not every worker has, with the workers that do."""
    by_line: dict[str, list[int]] = {}
    for worker, one in tried.items():
        for line in one.problems:
            by_line.setdefault(line, []).append(worker.number)
    return [
        line if len(numbers) == len(tried) else f"{_named(sorted(numbers))}: {line}"
        for line, numbers in by_line.items()
    ]


def _named(numbers: list[int]) -> str:
    return f"worker{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def capped(lines: Sequence[object]) -> list[str]:
    """Lines that fit into a message."""
    return [str(line)[:MAX_LINE] for line in lines[:MAX_LINES]]
