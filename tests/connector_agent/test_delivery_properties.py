"""Whatever happens in whatever order: every push ends exactly once, and leaves nothing behind."""

from __future__ import annotations

import random
from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st

from shared.errors import LocalFault
from tests.connector_agent.kit import FakeStream, World, run

METHODS = ("POST",) * 6 + ("GET",) * 3 + ("PUT",)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"a" * 300_000,
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and too much",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"garbage\r\n\r\n",
)


class Chaos:
    """Does one random thing after the other to a world, and in the end sees to it that everybody has finished."""

    def __init__(self, world: World, source: random.Random) -> None:
        self.world = world
        self.random = source
        self.streams: list[FakeStream] = []
        self.open: list[tuple[FakeStream, int | None]] = []
        """Streams whose push has not ended, with the bytes that are still announced."""
        self.answers: dict[int, bytes] = {}
        self.lost: list[FakeStream] = []

    async def step(self) -> None:
        does: list[Callable[[], None]] = [
            self.more, self.more, self.relay_resets, self.relay_reads, self.answer, self.answer, self.answer, self.eof,
            self.breaks, self.drain, self.mode,
        ]  # fmt: skip
        choice = self.random.randrange(len(does) + 4)
        if choice < len(does):
            does[choice]()
        elif choice == len(does):
            await self.wait()
        else:
            await self.push()
        await self.world.settle()

    async def push(self) -> None:
        rnd = self.random
        world = self.world
        world.full_at = rnd.choice((0, 0, 0, 50, 5000))
        body = b"x" * rnd.choice((0, 1, 10, 3000))
        end = rnd.random() < 0.6
        length = rnd.choice((None, len(body) + (0 if end else rnd.choice((0, 5, 20)))))
        stream = FakeStream(rnd.choice((0.0, 0.0, world.loop.time() + rnd.choice((0.0, 0.5, 3.0)))))
        stream.holds_back = rnd.random() < 0.5
        if rnd.random() < 0.05:
            stream.on_call = lambda: self.vanish(stream)
        self.streams.append(stream)
        await world.push(body, end, stream=stream, length=length, method=rnd.choice(METHODS))
        if not end:
            self.open.append((stream, None if length is None else length - len(body)))

    def vanish(self, stream: FakeStream) -> None:
        if not stream.is_over:
            self.lost.append(stream)
            stream.relay_resets(161)

    def more(self) -> None:
        if not self.open:
            return
        at = self.random.randrange(len(self.open))
        stream, left = self.open.pop(at)
        if stream.was_reset:
            return
        size = self.random.choice((0, 1, 7, 20, 4000)) if left is None or self.random.random() < 0.1 else min(left, 7)
        is_free = left is None or self.random.random() < 0.1
        end = self.random.random() < 0.5 if is_free else left == size
        stream.push_data(b"y" * size, end)
        if not end and not stream.was_reset:
            self.open.append((stream, None if left is None else left - size))

    def relay_resets(self) -> None:
        alive = [stream for stream in self.streams if not stream.was_reset]
        if alive:
            self.random.choice(alive).relay_resets(self.random.choice((108, 161, 163, 9999)))

    def relay_reads(self) -> None:
        for stream in self.streams:
            if stream.buffered and not stream.is_over:
                stream.relay_reads()

    def answer(self) -> None:
        transports = [one for one in self.world.transports if one.state == "open" and one.is_reading_now]
        if not transports:
            return
        at = self.random.randrange(len(transports))
        transport = transports[at]
        rest = self.answers.pop(id(transport), b"") or self.random.choice(ANSWERS)
        cut = self.random.choice((len(rest), len(rest), self.random.randrange(len(rest) + 1)))
        self.answers[id(transport)] = rest[cut:]
        if cut:
            transport.gets(rest[:cut])

    def eof(self) -> None:
        self._of_target("gets_eof")

    def breaks(self) -> None:
        self._of_target("breaks")

    def drain(self) -> None:
        self._of_target("drain")

    def _of_target(self, verb: str) -> None:
        transports = [one for one in self.world.transports if one.state == "open"]
        if transports and self.random.random() < 0.5:
            getattr(self.random.choice(transports), verb)()

    def mode(self) -> None:
        fault = LocalFault("target-unreachable", "not now")
        self.world.mode = self.random.choice(("connect", "connect", "connect", "hang", fault))

    async def wait(self) -> None:
        loop = self.world.loop
        done = loop.create_future()
        loop.call_later(self.random.choice((0.1, 1.0, 3.0, 30.0)), done.set_result, None)
        await done


async def _let_loose(seed: int, steps: int) -> None:
    world = World(max_connections=3)
    chaos = Chaos(world, random.Random(seed))
    for _ in range(steps):
        await chaos.step()
        busy = world.pool.total - world.pool.idle
        assert 0 <= busy <= world.dispatcher.in_flight
        assert world.pool.total <= world.pool.max_connections
    for stream, _left in chaos.open:
        if not stream.was_reset:
            stream.relay_resets()
    world.dispatcher.abort("connector-draining")
    await world.settle()
    world.assert_clean()
    for stream in chaos.streams:
        assert stream.is_over, stream.log
        assert stream.consumed_bytes == stream.handed_over, stream.log
    assert len(world.lines) == len(chaos.streams)
    world.table.close()
    await world.settle()
    assert world.pool.total == 0
    assert all(transport.state != "open" for transport in world.transports)
    assert world.loop.timers == 0  # type: ignore[attr-defined]


@hypothesis.given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_every_push_ends_once_and_leaves_nothing(seed: int, steps: int) -> None:
    run(lambda: _let_loose(seed, steps))
