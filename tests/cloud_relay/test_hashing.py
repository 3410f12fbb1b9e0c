"""Slow hashes: who goes first, who gets no place, and that nothing stays counted."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.hashing import Claim, Displaced, HashingPool, worker_count

ME = Claim("192.0.2.1", "acme", b"me")


class Work:
    """Jobs that are held back until `may_go`; the order in which they ran."""

    def __init__(self, pool: HashingPool) -> None:
        self.pool = pool
        self.order: list[str] = []
        self.may_go = threading.Event()
        self.is_running = threading.Event()

    def submit(
        self, name: str, *, claim: str = "", tenant: str = "acme", source: str = "192.0.2.1", is_suspect: bool = False
    ):
        def job() -> str:
            self.is_running.set()
            assert self.may_go.wait(10)
            self.order.append(name)
            return name

        return self.pool.submit(Claim(source, tenant, (claim or name).encode()), job, is_suspect=is_suspect)


async def outcomes(futures: list[asyncio.Future[str] | None]) -> list[str]:
    """Their results, "none" for what got no place, "displaced" for what had to give it up."""
    found = []
    for future in futures:
        try:
            found.append("none" if future is None else await future)
        except Displaced:
            found.append("displaced")
    return found


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
    more = [work.submit(f"s{n}", tenant="globex", is_suspect=True) for n in range(6)]
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
                whose = Claim(f"192.0.{claim % 2}.1", f"t{tenant}", b"%d" % claim)
                found = pool.submit(whose, (lambda: 1 / 0) if fails else int, is_suspect=is_suspect)
                if found is not None:
                    futures.append((found, fails))
                if claim == 4:
                    await asyncio.sleep(0)
            displaced = 0
            for future, fails in futures:
                try:
                    assert await future == 0
                    assert not fails
                except ZeroDivisionError:
                    assert fails
                except Displaced:
                    displaced += 1
            assert pool.refused == len(jobs) - len(futures) + displaced
            assert repr(pool).startswith("<HashingPool 0 of 6 jobs")
            assert not pool._claims
            assert pool._suspects == 0
            assert pool._free == 2
        finally:
            pool.close()

    asyncio.run(main())


async def test_a_tenant_alone_may_have_all_places_and_gives_them_up_to_others(work):
    ours = [work.submit(f"a{n}", tenant="acme", source=f"192.0.{n}.1") for n in range(9)]
    assert [one is None for one in ours] == [False] * 8 + [True]
    theirs = [work.submit(f"g{n}", tenant="globex") for n in range(5)]
    assert [one is None for one in theirs] == [False] * 3 + [True] * 2, "half of the places, of which one runs"
    third = work.submit("i0", tenant="initech")
    work.may_go.set()
    assert await outcomes(ours) == ["a0", "a1", "a2", "a3", *["displaced"] * 4, "none"]
    assert await outcomes(theirs) == ["g0", "g1", "g2", "none", "none"]
    assert await outcomes([third]) == ["i0"]
    assert work.order == ["a0", "a1", "g0", "i0", "a2", "g1", "a3", "g2"], "tenants take turns"
    assert work.pool.refused == 7


async def test_who_never_failed_takes_the_place_of_one_who_did(work):
    suspects = [work.submit(f"s{n}", tenant=f"t{n}", is_suspect=True) for n in range(4)]
    good = [work.submit(f"g{n}", source=f"192.0.{n}.1") for n in range(6)]
    assert None not in [*suspects, *good]
    work.may_go.set()
    assert await outcomes(suspects) == ["s0", "s1", "displaced", "displaced"]
    assert await outcomes(good) == [f"g{n}" for n in range(6)]
    assert work.order == ["s0", *(f"g{n}" for n in range(6)), "s1"]


async def test_within_a_tenant_a_network_with_many_sources_waits_behind_itself(work):
    many = [work.submit(f"m{n}", source=f"2001:db8:1:{n:x}::/64") for n in range(8)]
    one = [work.submit(f"one{n}", source="192.0.2.7", claim="s4") for n in range(2)]
    work.may_go.set()
    assert await outcomes(one) == ["one0", "one1"]
    assert await outcomes(many) == [*(f"m{n}" for n in range(6)), "displaced", "displaced"]
    assert work.order[:5] == ["m0", "m1", "one0", "m2", "one1"]


@given(st.lists(st.integers(0, 5), min_size=30, max_size=90))
def test_tenants_that_flood_have_equal_parts_of_what_waits(tenants):
    async def main() -> None:
        pool = HashingPool(workers=1, queue=12)
        may_go = threading.Event()
        try:
            pool.submit(ME, may_go.wait)
            waiting: list[tuple[int, asyncio.Future[int]]] = []
            wanted: Counter[int] = Counter()
            for number, tenant in enumerate(tenants):
                wanted[tenant] += 1
                future = pool.submit(Claim("192.0.2.1", f"t{tenant}", b"%d" % number), int)
                if future is not None:
                    waiting.append((tenant, future))
            held = Counter(tenant for tenant, future in waiting if not future.done())
            assert held.total() == 11
            level = max(held.values())
            for tenant, want in wanted.items():
                assert held[tenant] >= min(want, level - 1), (held, wanted)
        finally:
            may_go.set()
            pool.close()
            await asyncio.gather(*(future for _, future in waiting), return_exceptions=True)

    asyncio.run(main())


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
    niceness = await work.pool.submit(ME, lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert niceness >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
