"""Where a push's time went at the connector: waiting for a connection to the target, and the target's own time."""

from __future__ import annotations

import pytest

from tests.connector_agent.kit import OK, World, scenario, wait


def times(world: World, name: str) -> tuple[int, float]:
    """How often a histogram of the target was observed, and the sum."""
    cell = getattr(world.metrics.target("t"), name)
    return sum(cell.counts), pytest.approx(cell.sum, abs=1e-6)  # type: ignore[return-value]


@scenario
async def test_the_targets_time_is_from_the_push_to_the_first_byte_of_its_answer() -> None:
    world = World()
    stream = await world.push(b"x")
    await wait(2.0)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    await wait(5.0)
    world.transport.gets(b"ok")
    assert stream.log[-1].endswith("end")
    assert times(world, "answering") == (1, 2.0)
    assert times(world, "total") == (1, 7.0)


@scenario
async def test_a_sender_that_takes_its_time_is_not_counted_against_the_target() -> None:
    world = World()
    stream = await world.push(b"x", end=False, length=2)
    await wait(30.0)
    stream.push_data(b"y", end=True)
    await wait(1.0)
    world.transport.gets(OK)
    assert times(world, "answering") == (1, 1.0)


@scenario
async def test_an_answer_before_the_pushs_end_is_timed_from_its_begin() -> None:
    world = World()
    stream = await world.push(b"x", end=False, length=2)
    await wait(3.0)
    world.transport.gets(OK)
    stream.push_data(b"y", end=True)
    assert times(world, "answering") == (1, 3.0)


@scenario
async def test_waiting_for_a_connection_is_counted_only_where_somebody_had_to() -> None:
    world = World(max_connections=1)
    first = await world.push(b"x")
    second = await world.push(b"y")
    await wait(4.0)
    world.transport.gets(OK)
    await world.settle()
    assert first.is_over
    await wait(0.5)
    world.transport.gets(OK)
    assert second.is_over
    third = await world.push(b"z")
    world.transport.gets(OK)
    assert third.is_over
    assert times(world, "connection_wait") == (1, 4.0)
    assert times(world, "answering") == (3, 4.5)


@scenario
async def test_a_push_without_an_answer_says_nothing_of_the_targets_time() -> None:
    world = World()
    stream = await world.push(b"x")
    await wait(1.0)
    world.transport.breaks()
    assert stream.was_reset
    assert times(world, "answering") == (0, 0.0)
