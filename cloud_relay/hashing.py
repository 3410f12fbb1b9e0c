"""Slow hashes away from the event loop: few threads that give way, a short queue, and nobody who can fill it alone.

Two classes wait. Claims of whom no failure is known go first; those that have failed before wait behind them and can
never hold more than half of the places. Within a class tenants take turns, of a tenant the networks that claims come
from, and of a network its claims, of which one has at most two jobs here.

Whoever comes when all places are taken gets one of those that have waited so far: of the class that comes last, in the
tenant, the network and the claim that have most of them, the one that came last. So wrong passwords, however many, keep
no right one out that comes from elsewhere, and one tenant's, or one network's, cost nobody else a place.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from cloud_relay.sources import network_of
from cloud_relay.turns import Turns

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


class Claim(NamedTuple):
    """Who says to be whom: from where, as `source_key` names it, of which tenant, by which id."""

    source: str
    tenant: str
    username: bytes


class Displaced(Exception):
    """A job that waited had to make way for others."""


class _Job(NamedTuple):
    claim: Claim
    is_suspect: bool
    run: Callable[[], Any]
    future: asyncio.Future[Any]


class HashingPool:
    """Runs jobs that hash. `submit` refuses rather than let a queue grow that nobody waits for any more."""

    __slots__ = ("_claims", "_count", "_executor", "_free", "_limit", "_suspects", "_waiting", "refused")

    def __init__(self, workers: int | None = None, queue: int = QUEUE) -> None:
        self._free = workers or worker_count()
        self._executor = ThreadPoolExecutor(self._free, thread_name_prefix="hashing", initializer=_give_way)
        self._limit = queue
        self._count = self._suspects = 0
        """Jobs, running ones included, and those of claims that have failed before."""
        self._claims: Counter[Claim] = Counter()
        self._waiting: tuple[Turns[_Job], Turns[_Job]] = (Turns(3), Turns(3))
        """Those that never failed, and the others."""
        self.refused = 0

    def submit(
        self, claim: Claim, job: Callable[[], Result], *, is_suspect: bool = False
    ) -> asyncio.Future[Result] | None:
        """Run `job` on a thread; None when there is no place for it.

        `is_suspect`: the claim was wrong of late. The future has the exception `Displaced` when the job has to make way
        for others before it ran. Cancelling it does not end the job.
        """
        if self._claims[claim] >= PER_CLAIM:
            self.refused += 1
            return None
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        made = _Job(claim, is_suspect, job, future)
        self._claims[claim] += 1
        self._count += 1
        self._suspects += is_suspect
        if self._free:
            self._start(made)
            return future
        self._waiting[is_suspect].add(made, claim.tenant, network_of(claim.source), claim)
        excess = self._excess()
        if excess is not None:
            self.refused += 1
            self._count_out(excess)
            if excess is made:
                return None
            if not excess.future.done():
                excess.future.set_exception(Displaced())
        return future

    def close(self) -> None:
        """Let go of the threads; jobs that did not start are cancelled."""
        for waiting in self._waiting:
            for job in waiting:
                job.future.cancel()
        self._waiting = (Turns(3), Turns(3))
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _excess(self) -> _Job | None:
        """Which job has to go, if there are too many now. One that has just come waits, so there is one."""
        clean, suspects = self._waiting
        if suspects and (self._suspects > max(1, self._limit // 2) or self._count > self._limit):
            return suspects.drop()
        return clean.drop() if self._count > self._limit else None

    def _count_out(self, job: _Job) -> None:
        self._count -= 1
        self._suspects -= job.is_suspect
        self._claims[job.claim] -= 1
        if not self._claims[job.claim]:
            del self._claims[job.claim]

    def _start(self, job: _Job) -> None:
        self._free -= 1
        running = job.future.get_loop().run_in_executor(self._executor, job.run)
        running.add_done_callback(partial(self._finished, job))

    def _finished(self, job: _Job, done: asyncio.Future[Any]) -> None:
        self._free += 1
        self._count_out(job)
        following = self._waiting[False].next() or self._waiting[True].next()
        if following is not None:
            self._start(following)
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
        return f"<HashingPool {self._count} of {self._limit} jobs, {self.refused} refused>"


def _give_way() -> None:
    """On Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
