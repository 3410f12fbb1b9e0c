"""The process was away: what had waited for a connection is given up, and never delivered late."""

from __future__ import annotations

import asyncio

import pytest

from tests.connector_agent.kit import OK, FakeStream, VirtualLoop, World, scenario


def freeze(world: World, seconds: float) -> None:
    assert isinstance(world.loop, VirtualLoop)
    world.loop.freeze(seconds)


@scenario
async def test_a_push_that_waits_for_a_connect_is_not_written_after_a_gap() -> None:
    world = World()
    world.gaps.start()
    gate = asyncio.Event()
    connect = world.pool._connector

    async def connect_late(*args):
        await gate.wait()
        return await connect(*args)

    world.pool._connector = connect_late
    stream = await world.push(b"x", deadline=world.loop.time() + 30)
    freeze(world, 8.0)
    gate.set()
    await world.settle()
    assert stream.log == ["reset tunnel-refused refused"]
    assert world.transport.written == b""
    world.assert_clean(stream)
    world.gaps.stop()


@pytest.mark.parametrize(("seconds", "is_late"), [(0.5, False), (1.5, True)])
def test_a_push_that_waits_for_its_turn_is_not_written_after_a_gap(seconds: float, is_late: bool) -> None:
    @scenario
    async def tell() -> None:
        world = World(max_connections=1)
        world.gaps.start()
        busy, waiting, another = FakeStream(), FakeStream(), FakeStream()
        for stream in (busy, waiting, another):
            await world.push(b"x", stream=stream)
        freeze(world, seconds)
        world.transport.gets(OK)  # before any timer fires
        assert busy.log == ["answer 200 [2] end"]
        assert world.transport.written.count(b"POST") == (1 if is_late else 2)
        if is_late:
            assert waiting.log == another.log == ["reset tunnel-refused refused"]
            world.assert_clean(busy, waiting, another)
            after = await world.push(b"y")
            world.transport.gets(OK)
            assert after.ended
        world.gaps.stop()

    tell()


@scenario
async def test_a_get_that_was_written_once_is_not_called_refused() -> None:
    world = World()
    world.gaps.start()
    await world.push(b"x")
    world.transport.gets(OK)
    stream = await world.push(method="GET")
    world.mode = "hang"
    world.transport.gets_eof()
    await world.settle()
    freeze(world, 1.5)
    world.gaps.look(world.loop.time())
    assert stream.log == ["reset target-lost"]
    world.assert_clean(stream)
    world.gaps.stop()
