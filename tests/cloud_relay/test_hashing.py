"""Slow hashes: who goes first, who gets no place, and that nothing stays counted."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.hashing import HashingPool, worker_count


class Work:
    """Jobs that are held back until `may_go`; the order in which they ran."""

    def __init__(self, pool: HashingPool) -> None:
        self.pool = pool
        self.order: list[str] = []
        self.may_go = threading.Event()
        self.is_running = threading.Event()

    def submit(self, name: str, *, claim: str = "", tenant: str = "acme", is_suspect: bool = False):
        def job() -> str:
            self.is_running.set()
            assert self.may_go.wait(10)
            self.order.append(name)
            return name

        return self.pool.submit(tenant, claim or name, job, is_suspect=is_suspect)


@pytest.fixture
def work() -> Iterator[Work]:
    pool = HashingPool(workers=1, queue=8)
    made = Work(pool)
    yield made
    made.may_go.set()
    pool.close()


async def test_who_never_failed_goes_before_those_who_did(work):
    suspects = [work.submit(f"suspect-{n}", tenant=f"t{n}", is_suspect=True) for n in range(3)]
    good = [work.submit(f"good-{n}", tenant="globex") for n in range(2)]
    work.may_go.set()
    await asyncio.gather(*suspects, *good)
    # The first one ran already when the others came.
    assert work.order == ["suspect-0", "good-0", "good-1", "suspect-1", "suspect-2"]


async def test_one_claim_has_two_jobs_and_suspects_half_of_the_places(work):
    held = [work.submit(f"{n}", claim="one") for n in range(3)]
    assert [one is None for one in held] == [False, False, True]
    more = [work.submit(f"s{n}", tenant=f"t{n}", is_suspect=True) for n in range(6)]
    assert [one is None for one in more] == [False] * 4 + [True] * 2
    assert work.submit("good", tenant="globex") is not None
    assert work.pool.refused == 3
    work.may_go.set()
    await asyncio.gather(*[one for one in [*held, *more] if one is not None])
    await asyncio.sleep(0)
    assert work.submit("again", claim="one") is not None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans(), st.booleans()), max_size=60))
def test_nothing_stays_counted(jobs):
    async def main() -> None:
        pool = HashingPool(workers=2, queue=6)
        try:
            futures = []
            for tenant, claim, is_suspect, fails in jobs:
                found = pool.submit(f"t{tenant}", claim, (lambda: 1 / 0) if fails else int, is_suspect=is_suspect)
                if found is not None:
                    futures.append((found, fails))
                if claim == 4:
                    await asyncio.sleep(0)
            for future, fails in futures:
                if fails:
                    with pytest.raises(ZeroDivisionError):
                        await future
                else:
                    assert await future == 0
            assert repr(pool).startswith("<HashingPool 0 of 6 jobs")
            assert not pool._claims
            assert not pool._tenants
            assert not pool._suspects
            assert pool._free == 2
        finally:
            pool.close()

    asyncio.run(main())


async def test_suspects_leave_half_of_a_tenants_places_to_others(work):
    suspects = [work.submit(f"s{n}", is_suspect=True) for n in range(4)]
    assert [one is None for one in suspects] == [False, False, True, True]
    good = [work.submit(f"g{n}") for n in range(3)]
    assert [one is None for one in good] == [False, False, True], "half of all places are the tenant's"
    work.may_go.set()
    await asyncio.gather(*[one for one in [*suspects, *good] if one is not None])


async def test_what_waits_is_cancelled_at_the_end(work):
    first, second = work.submit("first"), work.submit("second")
    assert await asyncio.to_thread(work.is_running.wait, 10)
    work.pool.close()
    assert second.cancelled()
    work.may_go.set()
    assert await first == "first"


async def test_threads_give_way_and_leave_half_of_the_cores(work):
    assert 1 <= worker_count() <= max(1, len(os.sched_getaffinity(0)) // 2)
    assert worker_count(64) == 1
    niceness = await work.pool.submit("acme", "me", lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert niceness >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
