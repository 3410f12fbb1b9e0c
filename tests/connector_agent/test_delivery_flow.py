"""Time, back-pressure both ways, early answers and early ends."""

from __future__ import annotations

import pytest

from connector_agent.targets import Timeouts
from tests.connector_agent.kit import OK, FakeStream, World, scenario, wait


@pytest.mark.parametrize(
    ("so_far", "deadline", "after", "log"),
    [
        (b"", 0.0, 25.0, ["reset target-too-slow"]),
        (b"HTTP/1.1", 0.0, 25.0, ["reset target-too-slow"]),
        (b"", 3.0, 3.0, ["reset target-too-slow"]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 3.0, 60.0, ["answer 200 [2]", "reset target-too-slow"]),
    ],
    ids=str,
)
def test_a_target_that_never_answers(so_far: bytes, deadline: float, after: float, log: list[str]) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        began = world.loop.time()
        stream = await world.push(b"x", deadline=began + deadline if deadline else 0.0)
        if so_far:
            world.transport.gets(so_far)
        while not stream.was_reset:
            await world.settle()
            await wait(0.5)
        assert abs(world.loop.time() - began - after) < 1.0
        assert stream.log == log
        assert world.transport.state == "aborted"
        world.assert_clean(stream)

    tell()


@scenario
async def test_a_target_that_stops_reading_is_given_up() -> None:
    world = World(timeouts=Timeouts(first_byte=5.0, idle=10.0))
    world.full_at = 100
    stream = await world.push(b"x" * 200, end=False, length=1000)
    assert stream.consumed_bytes == 0
    await wait(9.0)
    assert stream.log == []
    await wait(1.5)
    assert stream.log == ["reset target-too-slow"]
    world.assert_clean(stream)


@scenario
async def test_waiting_for_the_sender_is_not_the_targets_fault() -> None:
    world = World(timeouts=Timeouts(first_byte=5.0, idle=10.0))
    stream = await world.push(b"x", end=False, length=2)
    await wait(100.0)
    stream.push_data(b"y", end=True)
    await wait(4.0)
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]


@scenario
async def test_an_idle_connection_is_closed_after_four_seconds() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    await wait(3.9)
    assert world.pool.idle == 1
    await wait(0.3)
    assert world.pool.total == 0
    assert world.transport.state == "closed"
    assert world.loop.timers == 0  # type: ignore[attr-defined]


@scenario
async def test_a_stale_connection_is_not_used_when_the_sweep_is_late() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    world.loop.freeze(5.0)  # type: ignore[attr-defined]
    assert world.pool.take(world.loop.time()) is None
    assert world.pool.total == 0


@scenario
async def test_the_targets_own_keep_alive_timeout_counts() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 204 N\r\nKeep-Alive: timeout=2\r\n\r\n")
    await wait(1.4)
    assert world.pool.idle == 1
    await wait(0.2)
    assert world.pool.total == 0


# Back-pressure, both ways.


@scenario
async def test_a_slow_target_holds_credit_back() -> None:
    world = World()
    world.full_at = 100
    stream = await world.push(b"x" * 200, end=False, length=500)
    stream.push_data(b"y" * 100)
    assert stream.consumed_bytes == 0
    world.transport.drain()
    assert stream.consumed_bytes == 300
    stream.push_data(b"z" * 200, end=True)
    assert stream.consumed_bytes == 500
    world.transport.gets(OK)
    world.assert_clean(stream)


@scenario
async def test_a_slow_sender_pauses_the_target() -> None:
    world = World()
    stream = FakeStream()
    stream.holds_back = True
    await world.push(b"x", stream=stream)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 300003\r\n\r\n" + b"a" * 300_000)
    assert not world.transport.is_reading_now
    await wait(1000.0)  # while we do not read, the target is not too slow
    stream.relay_reads()
    assert world.transport.is_reading_now
    world.transport.gets(b"end")
    assert stream.ended
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_a_connection_whose_last_bytes_have_not_left_is_not_kept() -> None:
    world = World()
    world.full_at = 1
    stream = await world.push(b"x" * 10)
    world.transport.gets(OK)
    assert stream.ended
    assert world.transport.state == "aborted"
    world.assert_clean(stream)


# Early answers and early ends.


@scenario
async def test_an_early_refusal_passes_and_the_rest_of_the_push_goes_nowhere() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=100)
    world.transport.gets(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nno")
    written = world.transport.written
    stream.push_data(b"d" * 50)
    assert world.transport.written == written
    world.transport.gets(b"!!")
    assert stream.log == ["answer 413 [2]", "send [2] end"]
    assert world.transport.state == "aborted"
    stream.push_data(b"d" * 47, end=True)
    world.assert_clean(stream)


@scenario
async def test_an_early_answer_of_2xx_may_go_on_both_ways() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=None)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    stream.push_data(b"de", end=True)
    assert world.transport.written.endswith(b"2\r\nde\r\n0\r\n\r\n")
    world.transport.gets(b"2\r\nde\r\n0\r\n\r\n")
    assert stream.log == ["answer 200 [3]", "send [2] end"]
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_an_early_whole_answer_ends_the_push() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=100)
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]
    assert world.transport.state == "aborted"
    stream.push_data(b"d" * 97, end=True)
    world.assert_clean(stream)


@scenario
async def test_a_body_that_grows_over_the_limit_is_cut_off() -> None:
    world = World(max_body=10)
    stream = await world.push(b"12345678", end=False, length=None)
    stream.push_data(b"901")
    assert stream.log == ["reset target-body-too-large"]
    assert not world.transport.written.endswith(b"0\r\n\r\n")
    assert world.transport.state == "aborted"
    world.assert_clean(stream)


@pytest.mark.parametrize("is_tls", [True, False])
def test_the_sender_hangs_up(is_tls: bool) -> None:
    @scenario
    async def tell() -> None:
        world = World(is_tls=is_tls)
        stream = await world.push(b"abc", end=False, length=100)
        stream.relay_resets()
        assert world.transport.state == "aborted"
        assert world.lines[-1]["code"] == "sender-gone"
        await world.settle()
        world.assert_clean(stream)

    tell()


@scenario
async def test_the_sender_hangs_up_while_the_push_waits() -> None:
    world = World()
    world.mode = "hang"
    stream = await world.push(b"abc")
    stream.relay_resets()
    world.assert_clean(stream)
    await wait(10.0)
    assert stream.log == ["relay resets"]


@scenario
async def test_a_stream_that_is_reset_while_it_takes_bytes() -> None:
    """The memory budget may take a stream in the middle of our own call."""
    world = World()
    stream = FakeStream()
    stream.on_call = stream.relay_resets
    await world.push(b"x", stream=stream)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert world.transport.state == "aborted"
    assert world.dispatcher.in_flight == 0


@scenario
async def test_a_late_reset_after_the_answer_is_nothing() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(OK)
    stream.relay_resets()
    assert len(world.lines) == 1
    assert world.pool.idle == 1


@scenario
async def test_the_access_line() -> None:
    world = World()
    await world.push(b"hello", path="/x?token=secret")
    world.transport.gets(OK)
    line = world.lines[0]
    assert {key: line[key] for key in line if not key.endswith("_ms") and key != "time"} == {
        "request_id": "req-1", "attempt": 1, "sender": "s4-prod", "route": "r", "target": "t", "method": "POST",
        "path": "/x", "status": 200, "bytes_in": 5, "bytes_out": 2, "reused": False,
    }  # fmt: skip
    assert world.metrics.target("t").by_class[2] == 1


async def _more(stream: FakeStream) -> None:
    stream.push_data(b"y", end=True)


@pytest.mark.parametrize("when", ["start", "data"])
def test_a_bug_of_ours_ends_one_push_and_leaves_nothing(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        await world.push(b"warm")
        world.transport.gets(OK)
        stream = FakeStream()
        if when == "data":
            await world.push(b"x", end=False, length=2, stream=stream)
        monkeypatch.setattr(world.transport, "write", lambda data: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await (_more(stream) if when == "data" else world.push(b"x", stream=stream))
        assert stream.log == ["reset connector-error"]
        assert world.transport.state == "aborted"
        await world.settle()
        world.assert_clean(stream)

    tell()
