"""Slow hashes away from the event loop: few threads, a short queue, and no tenant that can fill it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Result = TypeVar("Result")

WORKERS: Final = 2
"""Threads. One scrypt takes some 200 ms of a core and 16 MiB; the loop needs a core too."""

QUEUE: Final = 24
"""Jobs at most, running ones included: what two workers get done well before a sender gives up after 5 s."""


class HashingPool:
    """Runs jobs that hash. `submit` refuses rather than let a queue grow that nobody waits for any more."""

    __slots__ = ("_executor", "_jobs", "_limit", "_share", "refused")

    def __init__(self, workers: int = WORKERS, queue: int = QUEUE) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hashing")
        self._limit = queue
        self._share = max(1, queue // 2)
        self._jobs: dict[str, int] = {}
        self.refused = 0

    def submit(self, tenant: str, job: Callable[[], Result]) -> asyncio.Future[Result] | None:
        """Run `job` on a thread; None when the queue is full, or when the tenant holds its half of it."""
        held = self._jobs.get(tenant, 0)
        if held >= self._share or sum(self._jobs.values()) >= self._limit:
            self.refused += 1
            return None
        self._jobs[tenant] = held + 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, job)
        future.add_done_callback(lambda _: self._finished(tenant))
        return future

    def close(self) -> None:
        """Let go of the threads; jobs that did not start are cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _finished(self, tenant: str) -> None:
        held = self._jobs[tenant] - 1
        if held:
            self._jobs[tenant] = held
        else:
            del self._jobs[tenant]

    def __repr__(self) -> str:
        return f"<HashingPool {sum(self._jobs.values())} of {self._limit} jobs, {self.refused} refused>"
