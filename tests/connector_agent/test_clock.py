"""Durations on uvloop, whose own clock counts whole milliseconds."""

from __future__ import annotations

import asyncio
import time

import uvloop

from tests.connector_agent.kit import OK, World


def test_durations_are_finer_than_a_millisecond() -> None:
    async def tell() -> None:
        world = World()
        for _ in range(8):
            await world.push(b"x")
            time.sleep(0.0003)
            world.transport.gets(OK)
        for key in ("total_ms", "first_byte_ms"):
            durations = [line[key] for line in world.lines]
            assert min(durations) >= 0.3
            assert any(duration % 1 for duration in durations)
        world.table.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(tell())
