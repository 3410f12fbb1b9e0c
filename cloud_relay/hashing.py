"""Slow hashes away from the event loop: few threads that give way, a short queue, and nobody who can fill it alone.

Two classes wait. Claims of whom no failure is known go first; those that have failed before wait behind them and can
never hold more than half of the places, nor half of those that one tenant may have. So wrong passwords, however many,
keep no right one out that comes from elsewhere: one claim has at most two jobs here, one tenant half of the places.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

Result = TypeVar("Result")

QUEUE: Final = 24
"""Jobs at most, running ones included: what one worker gets done before a sender gives up after 5 s."""

PER_CLAIM: Final = 2
"""Jobs of one claim: an old and a new password at once. Equal passwords are one job (see `Realm.judge`)."""

MAX_WORKERS: Final = 4

NICENESS: Final = 10
"""How far the threads step back: a loop that wants the core they run on gets nine tenths of it."""


def worker_count(processes: int = 1) -> int:
    """Threads: half of the cores, shared with as many processes.

    One scrypt takes a tenth of a second of a core and 32 MiB, and the loops need cores too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores // 2) // processes)


class _Job(NamedTuple):
    tenant: str
    claim: Hashable
    is_suspect: bool
    run: Callable[[], Any]
    future: asyncio.Future[Any]


class HashingPool:
    """Runs jobs that hash. `submit` refuses rather than let a queue grow that nobody waits for any more."""

    __slots__ = (
        "_claims", "_executor", "_free", "_limit", "_suspects", "_tenants", "_waiting", "_waiting_suspects", "refused",
    )  # fmt: skip

    def __init__(self, workers: int | None = None, queue: int = QUEUE) -> None:
        self._free = workers or worker_count()
        self._executor = ThreadPoolExecutor(self._free, thread_name_prefix="hashing", initializer=_give_way)
        self._limit = queue
        self._tenants: Counter[str] = Counter()
        self._claims: Counter[Hashable] = Counter()
        self._suspects: Counter[str] = Counter()
        self._waiting: deque[_Job] = deque()
        self._waiting_suspects: deque[_Job] = deque()
        self.refused = 0

    def submit(
        self, tenant: str, claim: Hashable, job: Callable[[], Result], *, is_suspect: bool = False
    ) -> asyncio.Future[Result] | None:
        """Run `job` on a thread; None when there is no place for it.

        `claim` is who says to be whom; `is_suspect`: and was wrong of late. Cancelling the future does not end the job.
        """
        if not self._has_room(tenant, claim, is_suspect):
            self.refused += 1
            return None
        self._tenants[tenant] += 1
        self._claims[claim] += 1
        if is_suspect:
            self._suspects[tenant] += 1
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        made = _Job(tenant, claim, is_suspect, job, future)
        if self._free:
            self._start(made)
        else:
            (self._waiting_suspects if is_suspect else self._waiting).append(made)
        return future

    def close(self) -> None:
        """Let go of the threads; jobs that did not start are cancelled."""
        for waiting in (self._waiting, self._waiting_suspects):
            while waiting:
                waiting.popleft().future.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, tenant: str, claim: Hashable, is_suspect: bool) -> bool:
        half = max(1, self._limit // 2)
        if self._tenants.total() >= self._limit or self._tenants[tenant] >= half or self._claims[claim] >= PER_CLAIM:
            return False
        return not is_suspect or (self._suspects.total() < half and self._suspects[tenant] < max(1, half // 2))

    def _start(self, job: _Job) -> None:
        self._free -= 1
        running = job.future.get_loop().run_in_executor(self._executor, job.run)
        running.add_done_callback(partial(self._finished, job))

    def _finished(self, job: _Job, done: asyncio.Future[Any]) -> None:
        self._free += 1
        if job.is_suspect:
            _count_out(self._suspects, job.tenant)
        _count_out(self._tenants, job.tenant)
        _count_out(self._claims, job.claim)
        if waiting := self._waiting or self._waiting_suspects:
            self._start(waiting.popleft())
        error = None if done.cancelled() else done.exception()
        if job.future.done():
            return
        if done.cancelled():
            job.future.cancel()
        elif error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(done.result())

    def __repr__(self) -> str:
        return f"<HashingPool {self._tenants.total()} of {self._limit} jobs, {self.refused} refused>"


def _count_out(counts: Counter[Any], key: Hashable) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _give_way() -> None:
    """On Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
