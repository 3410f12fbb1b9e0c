"""Tasks: named, held while they run, never failing in silence, cancelled to the end."""

from __future__ import annotations

import asyncio
import gc

import pytest

from shared import tasks


async def fail() -> None:
    raise LookupError("it broke")


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_has_its_name_and_gives_its_result():
    async def answer() -> int:
        return 42

    task = tasks.spawn(answer(), "answer")
    assert task.get_name() == "answer"
    assert tasks.running() == ["answer"]
    assert await task == 42
    await asyncio.sleep(0)
    assert tasks.running() == []


async def test_a_failure_goes_to_the_loops_handler():
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    task = tasks.spawn(fail(), "weak link")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [context["message"] for context in seen] == ["task 'weak link' failed"]
    assert isinstance(seen[0]["exception"], LookupError)


async def test_a_failure_goes_to_on_error_instead():
    seen = []
    task = tasks.spawn(fail(), "weak link", lambda name, error: seen.append((name, str(error))))
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert seen == [("weak link", "it broke")]


async def test_a_running_task_survives_the_collector():
    started = asyncio.Event()
    released = asyncio.Event()
    ended = []

    async def work() -> None:
        started.set()
        await released.wait()
        ended.append("worked")

    tasks.spawn(work(), "held")
    await started.wait()
    gc.collect()
    assert tasks.running() == ["held"]
    released.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ended == ["worked"]


async def test_cancel_waits_for_the_end_and_reports_nothing():
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    log = []

    async def slow_to_end() -> None:
        try:
            await hang()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    task = tasks.spawn(slow_to_end(), "slow")
    await asyncio.sleep(0)
    await tasks.cancel(task, None)
    assert log == ["cleaned up"]
    assert task.cancelled()
    await tasks.cancel(task)
    assert seen == []


async def test_cancel_with_nothing_to_do():
    await tasks.cancel()
    await tasks.cancel(None)


async def test_cancelling_the_canceller_still_asked_every_task():
    task = tasks.spawn(hang(), "hangs")
    await asyncio.sleep(0)
    canceller = tasks.spawn(tasks.cancel(task), "canceller")
    await asyncio.sleep(0)
    canceller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await canceller
    assert task.cancelling() or task.cancelled()
    await asyncio.wait([task])
