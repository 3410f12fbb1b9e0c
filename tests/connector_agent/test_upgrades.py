"""A delivery that becomes a WebSocket: what the target is asked, what the relay gets, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from connector_agent.access import AccessRules, Rule
from connector_agent.headers_policy import HeaderPolicy
from connector_agent.targets import Target, Timeouts
from connector_agent.upstream.connect import Endpoint
from connector_agent.upstream.pool import UpstreamPool
from shared.errors import FAULTS
from shared.tunnel.duplex import LINGER
from tests.connector_agent.kit import OK, FakeStream, World, scenario, wait

SWITCH = (
    b"HTTP/1.1 101 Whatever\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nQanat-X: 1\r\nLocation: http://10.0.0.1/\r\n\r\n"
)
KEY = (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")


async def ask(world: World, **more: Any) -> FakeStream:
    return await world.push(
        end=False, method="GET", path="/ws?a=1", upgrade=b"websocket", headers=[KEY], **({"length": None} | more)
    )


async def upgraded(world: World, first: bytes = b"") -> FakeStream:
    stream = await ask(world)
    world.transport.gets(SWITCH + first)
    return stream


@scenario
async def test_what_the_target_is_asked() -> None:
    world = World(upgrades=True, headers=HeaderPolicy("target.test", secrets={"Authorization": "Bearer t"}))
    await ask(world)
    assert world.transport.written == (
        b"GET /ws?a=1 HTTP/1.1\r\nHost: target.test\r\nAuthorization: Bearer t\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Request-Id: req-1\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


@scenario
async def test_bytes_both_ways_and_both_ends() -> None:
    world = World(upgrades=True, is_tls=False)
    stream = await upgraded(world, b"first")
    assert stream.head.headers == [(b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]
    assert stream.log == ["answer 101 [0]", "send [5]"]
    asked = len(world.transport.written)
    stream.push_data(b"HTTP? no")
    world.transport.gets(b"HTTP/1.1 200 OK\r\n\r\n")
    assert world.transport.written[asked:] == b"HTTP? no"
    stream.push_data(b"", end=True)
    assert world.transport.eof_sent
    assert world.dispatcher.in_flight == 1
    world.transport.gets_eof()
    assert world.transport.state == "closed"
    assert stream.log[2:] == ["send [19]"], "the target has not yet got all"
    await world.settle()
    assert stream.log[2:] == ["send [19]", "send [0] end"]
    world.assert_clean(stream)
    assert world.pool.total == 0
    await wait(LINGER + 1)
    assert world.loop.timers == 0  # type: ignore[attr-defined]
    (line,) = world.lines
    assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 8, 24)
    assert "code" not in line
    metrics = world.metrics.target("t")
    assert (metrics.by_class[1], metrics.bytes_in, metrics.bytes_out) == (1, 8, 24)


@scenario
async def test_a_head_that_comes_byte_by_byte() -> None:
    world = World(upgrades=True)
    stream = await ask(world)
    for at in range(len(SWITCH)):
        world.transport.gets(SWITCH[at : at + 1])
    world.transport.gets(b"\x81\x00")
    assert stream.log == ["answer 101 [0]", "send [2]"]


@scenario
async def test_a_target_that_does_not_say_so_is_asked_for_nothing() -> None:
    world = World()
    stream = await ask(world)
    assert b"pgrade" not in world.transport.written
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]
    stream.handler.on_data(b"", end=True)  # the relay's end comes behind the answer
    world.assert_clean(stream)
    assert world.pool.idle == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 S\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.0 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[16:70]),
)
def test_a_101_that_is_none(answer: bytes) -> None:
    @scenario
    async def tell() -> None:
        world = World(upgrades=True)
        stream = await ask(world)
        world.transport.gets(answer)
        assert stream.log == ["reset target-malformed-answer"]
        assert world.transport.state == "aborted"
        world.assert_clean(stream)

    tell()


def test_a_101_that_nobody_asked_for() -> None:
    @scenario
    async def tell() -> None:
        for world, ask_it in ((World(), True), (World(upgrades=True), False)):
            stream = await (ask(world) if ask_it else world.push(method="GET"))
            world.transport.gets(SWITCH)
            assert stream.log == ["reset target-malformed-answer"]
            world.assert_clean(stream)

    tell()


@scenario
async def test_any_other_answer_is_an_ordinary_one() -> None:
    world = World(upgrades=True)
    for status in (200, 404, 503):
        stream = await ask(world)
        world.transport.gets(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % status)
        assert stream.log == [f"answer {status} [2] end"]
        world.assert_clean(stream)
    assert world.pool.total == 1  # the connection was kept for the next


@scenario
async def test_the_relay_may_say_nothing_before_the_101() -> None:
    for data, end in ((b"GET /internal HTTP/1.1\r\n\r\n", False), (b"", True)):
        world = World(upgrades=True)
        stream = await ask(world)
        written = world.transport.written
        stream.push_data(data, end)
        assert stream.log == ["reset bad-push"]
        assert world.transport.written == written
        assert world.transport.state == "aborted"
        world.assert_clean(stream)


@scenario
async def test_a_hostile_relay() -> None:
    """An upgrade with a body, a length or another method never begins, whether or not the target allows upgrades."""
    for upgrades in (True, False):
        world = World(upgrades=upgrades)
        for more in ({"body": b"x"}, {"length": 0}, {"length": 5}, {"method": "POST"}, {"end": True}):
            asked: dict[str, Any] = {"end": False, "method": "GET", "length": None, "upgrade": b"websocket"}
            stream = await world.push(**(asked | more))
            assert stream.log == ["reset bad-push refused"]
            world.assert_clean(stream)
        assert not world.transports


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_target_that_breaks(is_tls: bool) -> None:
    @scenario
    async def tell() -> None:
        world = World(upgrades=True, is_tls=is_tls)
        stream = await upgraded(world, b"half of")
        world.transport.breaks()
        assert stream.log == ["answer 101 [0]", "send [7]", "reset target-lost"]
        world.assert_clean(stream)
        assert world.pool.total == 0
        assert (world.lines[0]["code"], world.lines[0]["status"]) == ("target-lost", 101)

    tell()


@scenario
async def test_the_relay_resets() -> None:
    world = World(upgrades=True)
    stream = await upgraded(world)
    stream.relay_resets(FAULTS["tunnel-lost"].wire)
    assert world.transport.state == "aborted"
    await world.settle()
    world.assert_clean(stream)
    assert world.lines[0]["code"] == "tunnel-lost"


@scenario
async def test_a_sender_that_just_leaves_after_the_targets_end_is_no_fault() -> None:
    world = World(upgrades=True, is_tls=False)
    stream = await upgraded(world)
    world.transport.gets_eof()
    assert stream.log[-1] == "send [0] end"
    assert world.transport.state == "open"
    stream.handler.on_reset(FAULTS["sender-gone"].wire, False)
    assert world.transport.state == "aborted"
    await world.settle()
    world.assert_clean(stream)
    assert "code" not in world.lines[0]


@scenario
async def test_under_tls_the_relays_end_is_held_back() -> None:
    world = World(upgrades=True)
    stream = await upgraded(world)
    stream.push_data(b"bye", end=True)
    assert world.transport.state == "open"
    world.transport.gets(b"and more")
    world.transport.gets_eof()
    assert stream.log[-1] == "send [8]"
    assert world.transport.state == "closed"
    await world.settle()
    assert stream.log[-2:] == ["send [8]", "send [0] end"]
    world.assert_clean(stream)


@scenario
async def test_nothing_moves() -> None:
    world = World(upgrades=True, timeouts=Timeouts(first_byte=5.0, idle=10.0))
    stream = await upgraded(world)
    for _ in range(4):
        await wait(8.0)
        stream.push_data(b"ping")
        await wait(8.0)
        world.transport.gets(b"pong")
    await wait(10.1)
    assert stream.log[-1] == "reset target-too-slow"
    await world.settle()
    world.assert_clean(stream)


@scenario
async def test_the_deadline_ends_with_the_101() -> None:
    world = World(upgrades=True)
    stream = FakeStream(world.loop.time() + 3.0)
    await ask(world, stream=stream)
    world.transport.gets(SWITCH)
    await wait(30.0)
    assert stream.log == ["answer 101 [0]"]
    late = FakeStream(world.loop.time() + 3.0)
    await ask(world, stream=late)
    await wait(3.1)
    assert late.was_reset


@scenario
async def test_back_pressure_both_ways() -> None:
    world = World(upgrades=True)
    stream = await upgraded(world)
    world.transport.full_at = 1
    stream.push_data(b"x" * 100)
    stream.push_data(b"y" * 100)
    assert stream.consumed_bytes == 0
    world.transport.drain()
    assert stream.consumed_bytes == 200
    stream.holds_back = True
    world.transport.gets(b"z" * 300_000)
    assert not world.transport.is_reading_now
    stream.relay_reads()
    assert world.transport.is_reading_now


def successor(world: World, *, path: str = "/", port: int = 443, upgrades: bool = True) -> Target:
    counts = world.metrics.target("t")
    pool = UpstreamPool(Endpoint("target.test", port), world.loop, counts=counts)
    rules = AccessRules((Rule(("GET",), path, sub_paths=True),))
    return Target(
        "t", "https://target.test", rules, HeaderPolicy("target.test"), pool, counts, upgrades=upgrades, fingerprint=1
    )


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, None),
        ({"upgrades": False}, "unknown-target"),
        ({"port": 444}, "unknown-target"),
        ({"path": "/other"}, "path-not-allowed"),
        (None, "unknown-target"),
    ],
)
def test_a_reload(more: dict[str, Any] | None, code: str | None) -> None:
    @scenario
    async def tell() -> None:
        world = World(upgrades=True)
        stream = await upgraded(world)
        world.table.replace([] if more is None else [successor(world, **more)])
        world.dispatcher.recheck()
        await wait(1.0)
        assert stream.was_reset is (code is not None)
        if code is not None:
            assert stream.log[-1] == f"reset {code}"
            assert world.transport.state == "aborted"
            world.assert_clean(stream)

    tell()


@scenario
async def test_a_target_that_is_changed_and_then_removed() -> None:
    world = World(upgrades=True)
    stream = await upgraded(world)
    world.table.replace([successor(world)])
    world.dispatcher.recheck()
    assert not stream.was_reset
    world.table.replace([])
    world.dispatcher.recheck()
    assert stream.log[-1] == "reset unknown-target"


@scenario
async def test_a_reload_between_the_wish_and_the_101() -> None:
    world = World(upgrades=True)
    stream = await ask(world)
    world.table.replace([successor(world, upgrades=False)])
    world.dispatcher.recheck()
    assert not stream.was_reset  # an ordinary answer would still be taken
    world.transport.gets(SWITCH)
    assert stream.log == ["reset unknown-target"]
    assert world.transport.state == "aborted"


@scenario
async def test_a_connector_that_ends() -> None:
    world = World(upgrades=True)
    stream = await upgraded(world)
    world.dispatcher.abort("connector-draining")
    assert stream.log[-1] == "reset target-lost"
    await world.settle()
    world.assert_clean(stream)


@scenario
async def test_a_stale_connection_is_tried_anew() -> None:
    world = World(upgrades=True)
    await world.push(b"x")
    world.transport.gets(OK)
    stream = await ask(world)
    world.transport.breaks()
    await world.settle()
    assert len(world.transports) == 2
    world.transport.gets(SWITCH)
    assert stream.log == ["answer 101 [0]"]
