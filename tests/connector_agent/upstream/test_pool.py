"""The pool: last in first out, bounded in connections, connects and waiting pushes, and never left with a debt."""

from __future__ import annotations

import asyncio

from shared.errors import LocalFault
from tests.connector_agent.kit import NO_CONTENT, FakeStream, VirtualLoop, World, run, wait

OK = NO_CONTENT
REFUSED = LocalFault("target-unreachable", "refused")


def test_last_in_first_out() -> None:
    async def tell() -> None:
        world = World()
        await world.push(b"a")
        await world.push(b"b")
        first, second = world.transports
        second.gets(OK)
        first.gets(OK)
        await world.push(b"c")
        assert first.written.endswith(b"c")
        await world.push(b"d")
        assert second.written.endswith(b"d")

    run(tell)


def test_more_pushes_than_connections_wait_their_turn() -> None:
    async def tell() -> None:
        world = World(max_connections=2)
        streams = [await world.push(b"%d" % number) for number in range(6)]
        assert len(world.transports) == 2
        assert world.pool.waiting == 4
        order = []
        for _ in range(3):
            for transport in world.transports:
                order.append(transport.written[-1:])
                transport.gets(OK)
        assert order == [b"0", b"1", b"2", b"3", b"4", b"5"]
        world.assert_clean(*streams)
        assert len(world.transports) == 2

    run(tell)


def test_a_sender_that_floods_waits_behind_itself() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        streams = [await world.push(b"%d" % number, sender="flood") for number in range(4)]
        streams += [await world.push(b"%d" % number, sender="quiet") for number in (7, 8)]
        order = []
        for _ in streams:
            order.append(world.transport.written[-1:])
            world.transport.gets(OK)
        assert order == [b"0", b"1", b"7", b"2", b"8", b"3"]
        world.assert_clean(*streams)

    run(tell)


def test_a_push_that_waits_too_long_is_told_so() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        busy = await world.push(b"a")
        waiting = await world.push(b"b")
        hurried = await world.push(b"c", deadline=world.loop.time() + 1.0)
        await wait(1.2)
        assert hurried.log == ["reset deadline-exceeded refused"]
        assert waiting.log == []
        await wait(4.0)
        assert waiting.log == ["reset connector-overloaded refused"]
        world.transport.gets(OK)
        world.assert_clean(busy, waiting, hurried)

    run(tell)


def test_there_is_no_room_for_endless_waiting() -> None:
    async def tell() -> None:
        world = World(max_connections=1, max_waiting=2)
        streams = [await world.push(b"x") for _ in range(4)]
        assert [stream.log for stream in streams] == [[], [], [], ["reset connector-overloaded refused"]]

    run(tell)


def test_connects_under_way_are_bounded() -> None:
    async def tell() -> None:
        world = World(max_connections=100, max_connecting=3)
        world.mode = "hang"
        for _ in range(20):
            await world.push(b"x")
        assert world.metrics.target("t").connects == 3
        world.pool.abort()
        await world.settle()

    run(tell)


def test_a_burst_to_a_slow_target_gets_all_connections_that_it_may() -> None:
    async def tell() -> None:
        world = World(max_connections=10, max_connecting=3)
        streams = await asyncio.gather(*(world.push(b"x") for _ in range(20)))
        await wait(0.1)
        assert len(world.transports) == 10
        assert world.pool.waiting == 10
        for _ in range(2):
            for transport in world.transports:
                transport.gets(OK)
        world.assert_clean(*streams)

    run(tell)


def test_a_failed_connect_fails_all_that_waited_for_it() -> None:
    async def tell() -> None:
        world = World()
        world.mode = "hang"
        streams = [await world.push(b"x") for _ in range(3)]
        late = FakeStream()
        await wait(1.9)
        await world.push(b"late", stream=late)
        await wait(0.2)
        assert [stream.code for stream in streams] == ["target-unreachable"] * 3
        assert late.log == []
        await wait(2.0)
        assert late.log == ["reset target-unreachable refused"]
        world.assert_clean(*streams, late)

    run(tell)


def test_a_failed_connect_leaves_the_rest_to_busy_connections() -> None:
    async def tell() -> None:
        world = World(max_connections=3)
        busy = await world.push(b"a")
        world.mode = "hang"
        waiting = [await world.push(b"x") for _ in range(2)]
        await wait(2.1)
        # Each connect that failed took one push with it, at most; the busy connection may serve the others.
        assert waiting[0].log == ["reset target-unreachable refused"]
        world.transport.gets(OK)
        world.transport.gets(OK) if not waiting[1].was_reset else None
        world.assert_clean(busy, *waiting)

    run(tell)


def test_a_target_that_comes_back_is_used_at_once() -> None:
    async def tell() -> None:
        world = World()
        world.mode = REFUSED
        stream = await world.push(b"x")
        assert stream.was_reset
        assert world.pool.last_fault is REFUSED
        world.mode = "connect"
        stream = await world.push(b"x")
        world.transport.gets(OK)
        assert stream.ended
        assert world.pool.last_fault is None

    run(tell)


def test_a_lost_connection_makes_room_for_who_waits() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        await world.push(b"a")
        waiting = await world.push(b"b")
        world.transport.breaks()
        await world.settle()
        assert len(world.transports) == 2
        world.transport.gets(OK)
        assert waiting.ended

    run(tell)


def test_many_expired_pushes_do_not_recurse() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        await world.push(b"a")
        deadline = world.loop.time() + 1.0
        streams = [await world.push(b"x", deadline=deadline) for _ in range(1500)]
        assert isinstance(world.loop, VirtualLoop)
        world.loop.freeze(2.0)
        world.transport.gets(OK)
        assert all(stream.code == "deadline-exceeded" for stream in streams)
        assert world.pool.idle == 1

    run(tell)


def test_a_connection_that_may_not_idle_serves_nobody_that_waits() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        first = await world.push(b"a")
        waiting = await world.push(b"b")
        world.transport.gets(b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=0\r\n\r\n")
        assert first.ended
        assert world.transport.state == "closed"
        assert world.transport.written.count(b"POST") == 1
        await world.settle()
        assert len(world.transports) == 2
        world.transport.gets(OK)
        world.assert_clean(first, waiting)

    run(tell)


def test_a_removed_target_serves_nobody() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        busy = await world.push(b"a")
        waiting = await world.push(b"b")
        world.table.replace([])
        assert (await world.push(b"c")).log == ["reset unknown-target refused"]
        await wait(1.0)
        assert busy.log == ["reset target-lost"]
        assert waiting.log == ["reset unknown-target refused"]
        await world.settle()
        world.assert_clean(busy, waiting)
        assert world.pool.total == 0
        assert isinstance(world.loop, VirtualLoop)
        assert world.loop.timers == 0

    run(tell)


def test_what_waits_for_a_removed_target_is_refused_within_the_second() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        busy = await world.push(b"a")
        waiting = await world.push(b"b")
        world.table.replace([])
        world.mode = "hang"
        world.transport.breaks()  # the last connection goes while a push waits
        await wait(1.0)
        assert busy.log == ["reset target-lost"]
        assert waiting.log == ["reset unknown-target refused"]
        await wait(5.0)
        world.assert_clean(busy, waiting)
        assert world.pool.total == 0
        assert world.metrics.target("t").connects == 2
        assert isinstance(world.loop, VirtualLoop)
        assert world.loop.timers == 0

    run(tell)


def test_a_removed_target_is_not_connected_to_for_another_try() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        await world.push(b"a")
        world.transport.gets(OK)
        stream = await world.push(method="GET")  # on a connection that was used: it would be tried again on another
        world.table.replace([])
        await wait(1.0)
        assert stream.log == ["reset unknown-target"]
        world.assert_clean(stream)
        assert len(world.transports) == 1

    run(tell)


def test_a_changed_targets_pushes_end_under_the_old_config() -> None:
    async def tell() -> None:
        world = World(max_connections=1)
        busy = await world.push(b"a")
        waiting = await world.push(b"b")
        idle_before = world.pool.idle
        world.pool.retire()
        await wait(3.0)
        world.transport.gets(OK)
        world.transport.gets(OK)
        assert busy.ended
        assert waiting.ended
        assert idle_before == world.pool.total == 0
        await world.settle()
        assert world.transport.state == "closed"

    run(tell)
