"""A push that crosses between two workers: the bytes, the ends, the resets, and what is known of it on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloud_relay.session import Session
from cloud_relay.workers.crossing import address, cross, read_address
from shared.errors import FAULTS
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import MemoryTransport, memory_pair

KEY = ("acme", "walldorf", "frun")
LIMIT = 1 << 26


class Owner:
    """A LinkHandler: `take` gets each stream."""

    def __init__(self, take: Any = None) -> None:
        self.take = take

    def on_ready(self, link: Link, hello: Hello) -> None: ...

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        self.take(stream, head, body, end)

    def on_closed(self, link: Link, code: str, detail: str) -> None: ...

    def on_room(self, link: Link) -> bool:
        return False

    def on_handler_error(self, link: Link, error: Exception) -> None:
        raise error


class End:
    """A StreamHandler at either end of the whole way. It takes what comes, unless it `holds`."""

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = stream
        self.head = b""
        self.got = bytearray()
        self.ended = False
        self.reset: tuple[int, bool] | None = None
        self.holds = False

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self.head = head
        self.on_data(body, end and not interim)

    def on_data(self, data: bytes, end: bool) -> None:
        assert self.stream is not None
        self.got += data
        self.ended |= end
        if not self.holds:
            self.stream.consumed(len(data))

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.reset = (wire_code, refused)

    def on_writable(self) -> None: ...


class Way:
    """Worker A, worker B, a connector, joined in memory. `pushes` are the connector's ends."""

    def __init__(self) -> None:
        self.budget = MemoryBudget(LIMIT)
        self.pushes: list[End] = []
        self.has_tunnel = True
        self.a, _arrivals, self.between = self._link(self._cross)
        self.b, _connector, self.tunnel = self._link(self._arrive)
        self.crossed: list[bool] = []
        self.avoided: list[str] = []

    def _link(self, take: Any) -> tuple[Link, Link, MemoryTransport]:
        loop = asyncio.get_running_loop()
        ends = memory_pair(loop)
        links = []
        for role, end in zip((Role.RELAY, Role.CONNECTOR), ends, strict=True):
            link = Link(
                role, cast(Any, Owner(take)), Hello(), settings=Settings(), budget=self.budget, gaps=GapWatch(loop),
                loop=loop,
            )  # fmt: skip
            end.receiver = link
            link.start(end)
            links.append(link)
        return links[0], links[1], ends[0]

    def _cross(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        self.crossed.append(cross(self._choose, stream, head, body, end))

    def _choose(self, key: tuple[str, str, str], avoid: Sequence[str]) -> Session | None:
        self.avoided = list(avoid)
        if not self.has_tunnel or key != KEY:
            return None
        return cast(Session, SimpleNamespace(link=self.b, identity=SimpleNamespace(connector="c1")))

    def _arrive(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        push = End(stream)
        push.head, push.got, push.ended = head, bytearray(body), end
        stream.consumed(len(body))
        stream.handler = push
        self.pushes.append(push)

    def push(self, body: bytes = b"", *, end: bool = True, key: tuple[str, str, str] = KEY) -> End:
        sender = End()
        sender.stream = self.a.open_stream(sender, address(key, ["c2", "c3"], b"the head"), body, end)
        return sender


async def settle(turns: int = 40) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.fixture
async def way() -> Way:
    made = Way()
    await settle()
    return made


async def test_a_small_push_and_its_answer(way: Way) -> None:
    sender = way.push(b"42")
    await settle()
    (push,) = way.pushes
    assert (push.head, bytes(push.got), push.ended) == (b"the head", b"42", True)
    assert way.avoided == ["c2", "c3"]
    assert push.stream is not None
    push.stream.answer(b"103", interim=True)
    push.stream.answer(b"204", b"done", end=True)
    await settle()
    assert (sender.head, bytes(sender.got), sender.ended) == (b"204", b"done", True)
    assert way.budget.used == 0


@pytest.mark.parametrize("seed", range(8))
async def test_bodies_cross_whole_both_ways_at_once(way: Way, seed: int) -> None:
    draw = random.Random(seed)
    sender = way.push(b"", end=False)
    await settle()
    (push,) = way.pushes
    assert push.stream is not None
    assert sender.stream is not None
    push.stream.answer(b"200")
    bodies = [draw.randbytes(draw.randrange(3 << 20)) for _ in range(2)]
    lefts = [bodies[0], bodies[1]]
    while any(lefts):
        for index, end in enumerate((sender, push)):
            assert end.stream is not None
            if lefts[index] and end.stream.is_writable:
                size = draw.randrange(1, 200_000)
                end.stream.send(lefts[index][:size])
                lefts[index] = lefts[index][size:]
        await settle(3)
    for end in (sender, push):
        assert end.stream is not None
        end.stream.send(b"", end=True)
    async with asyncio.timeout(10):
        while not (sender.ended and push.ended):
            await settle()
    assert [bytes(push.got), bytes(sender.got)] == bodies
    assert way.budget.used == 0


async def test_who_never_reads_holds_a_bounded_number_of_bytes(way: Way) -> None:
    sender = way.push(b"", end=False)
    await settle()
    way.pushes[0].holds = True
    assert sender.stream is not None
    sent, still = 0, 0
    while still < 100:
        still += 1
        if sender.stream.is_writable:
            sender.stream.send(bytes(64 * 1024))
            sent += 64 * 1024
            still = 0
            assert sent < 2 * Settings().stream_credit_max  # a reader that was fast at first has earned more than 1 MiB
        await settle(3)
    sender.stream.reset(FAULTS["sender-gone"].wire)
    await settle()
    assert way.pushes[0].reset is not None
    assert way.budget.used == 0


async def test_where_there_is_no_tunnel_it_is_refused(way: Way) -> None:
    way.has_tunnel = False
    sender = way.push(b"42")
    await settle()
    assert sender.reset == (FAULTS["no-connector"].wire, True)
    assert way.crossed == [False]


async def test_a_prefix_that_is_none_is_refused(way: Way) -> None:
    sender = End()
    way.a.open_stream(sender, b"nonsense", b"", True)
    await settle()
    assert sender.reset == (FAULTS["bad-push"].wire, True)


async def test_a_tunnel_that_drains_meanwhile_refuses(way: Way) -> None:
    way.b.drain(10.0)
    sender = way.push(b"42")
    await settle()
    assert sender.reset == (FAULTS["tunnel-refused"].wire, True)
    assert not way.pushes


async def test_the_connectors_refusal_stays_one(way: Way) -> None:
    sender = way.push(b"42")
    await settle()
    assert way.pushes[0].stream is not None
    way.pushes[0].stream.reset(FAULTS["connector-draining"].wire, refused=True)
    await settle()
    assert sender.reset == (FAULTS["connector-draining"].wire, True)


async def test_lost_before_it_left_is_no_ambiguity(way: Way) -> None:
    way.tunnel.pause()
    way.tunnel.send(bytes(64 * 1024))
    way.tunnel.send(bytes(64 * 1024))  # the tunnel is full: nothing more is taken from any stream
    sender = way.push(b"42")
    await settle()
    way.tunnel.abort()
    await settle()
    assert sender.reset == (FAULTS["tunnel-lost"].wire, True)


async def test_lost_on_the_way_is_ambiguous(way: Way) -> None:
    sender = way.push(b"42")
    await settle()
    way.tunnel.abort()
    await settle()
    assert sender.reset == (FAULTS["tunnel-lost"].wire, False)
    assert way.budget.used == 0


async def test_a_sibling_that_dies_takes_its_pushes_along(way: Way) -> None:
    sender = way.push(b"42")
    await settle()
    way.between.abort()
    await settle()
    assert sender.reset == (FAULTS["tunnel-lost"].wire, False)
    assert way.pushes[0].reset is not None


def test_an_address_is_read_as_it_was_written() -> None:
    assert read_address(address(KEY, [], b"1\0id\0")) == (KEY, [], b"1\0id\0")
    assert read_address(address(KEY, ["a", "b"], b"")) == (KEY, ["a", "b"], b"")
