"""What tasks wait for: the whole chain of awaits, and no values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from shared.task_dump import render_dump, task_dump
from shared.tasks import cancel, spawn


async def inner(secret: str) -> None:
    await asyncio.Event().wait()
    raise AssertionError(secret)


async def outer(secret: str) -> None:
    await inner(secret)


async def items() -> AsyncIterator[int]:
    await asyncio.sleep(60)
    yield 1


async def loops() -> None:
    async for _ in items():
        pass


async def test_the_chain_of_awaits() -> None:
    tasks = [spawn(outer("planted-secret"), "waits") for _ in range(3)]
    tasks.append(spawn(loops(), "iterates"))
    await asyncio.sleep(0)
    dump = task_dump()
    await cancel(*tasks)
    assert dump["count"] == len(tasks) + 1
    (waits,) = [task for task in dump["tasks"] if task["name"] == "waits"]
    assert waits["count"] == 3
    assert [line.rpartition(" ")[2] for line in waits["stack"][:3]] == ["outer", "inner", "Event.wait"]
    assert "test_task_dump.py:" in waits["stack"][0]
    (iterates,) = [task for task in dump["tasks"] if task["name"] == "iterates"]
    assert any("loops" in line for line in iterates["stack"])
    text = render_dump(dump)
    assert "task waits × 3\n" in text
    assert "thread MainThread\n" in text
    assert "planted-secret" not in text
