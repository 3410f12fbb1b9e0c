"""Two ends of something that half-closes, of whatever it is made, under one contract.

`End` is what a test does with one end and what it has seen of the other: `data`, `has_eof`, `was_lost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from shared.protocol import Stream
from shared.tcp.edge import Edge
from shared.tcp.plain import PlainEdge


class End(Protocol):
    """One end. `events` is a transcript of what came: "data" (once for any number), "eof", "reset", "closed"."""

    data: bytearray
    events: list[str]

    @property
    def is_full(self) -> bool: ...
    def send(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def reset(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class _Seen:
    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[str] = []

    def _note(self, event: str) -> None:
        if not self.events or self.events[-1] != event:
            self.events.append(event)


class EdgeEnd(_Seen):
    """A plain TCP connection; also its EdgeHandler."""

    def __init__(self) -> None:
        super().__init__()
        self.edge: Edge | None = None
        self.made = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._edge.is_full

    @property
    def _edge(self) -> Edge:
        assert self.edge is not None
        return self.edge

    def send(self, data: bytes) -> None:
        self._edge.write(data)

    def end(self) -> None:
        self._edge.end()

    def reset(self) -> None:
        self._edge.reset()

    def pause(self) -> None:
        self._edge.pause_reading()

    def resume(self) -> None:
        self._edge.resume_reading()

    # EdgeHandler

    def on_made(self, edge: Edge) -> None:
        self.edge = edge
        self.made.set()

    def on_bytes(self, data: bytes) -> None:
        self.data += data
        self._note("data")

    def on_eof(self) -> None:
        self._note("eof")

    def on_drained(self) -> None: ...

    def on_lost(self, error: Exception | None) -> None:
        self._note("reset" if error is not None else "closed")


class StreamEnd(_Seen):
    """A stream of a tunnel; also its StreamHandler."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: Stream = cast(Stream, None)
        self.answered = asyncio.Event()
        self._is_paused = False
        self._unread = 0
        self._has_ended = False

    @property
    def is_full(self) -> bool:
        return not self.stream.is_writable

    def send(self, data: bytes) -> None:
        self.stream.send(data)

    def end(self) -> None:
        self._has_ended = True
        self.stream.send(b"", end=True)
        self._look()

    def reset(self) -> None:
        self.stream.reset(159)
        self._note("reset")

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        unread, self._unread = self._unread, 0
        self.stream.consumed(unread)

    # StreamHandler

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self.answered.set()
        if body or end:
            self.on_data(body, end)

    def on_data(self, data: bytes, end: bool) -> None:
        self.data += data
        if data:
            self._note("data")
            if self._is_paused:
                self._unread += len(data)
            else:
                self.stream.consumed(len(data))
        if end:
            self._note("eof")
            self._look()

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self._note("reset")

    def on_writable(self) -> None: ...

    def _look(self) -> None:
        if self._has_ended and "eof" in self.events:
            self._note("closed")


@dataclass
class Ends:
    """`near` opened, `far` accepted. `cut` loses the tunnel in between, where there is one."""

    near: End
    far: End
    cut: Callable[[], None] | None = None


async def until(condition: Callable[[], object], limit: float = 10.0) -> None:
    """Wait for what the other end brings about."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.002)


async def edge_server(accept: Callable[[EdgeEnd], None]) -> asyncio.Server:
    """A listener on a free port of loopback, whose connections are EdgeEnds."""
    loop = asyncio.get_running_loop()

    def make() -> PlainEdge:
        end = EdgeEnd()
        accept(end)
        return PlainEdge(end)

    return await loop.create_server(make, "127.0.0.1", 0)


async def dial(port: int, host: str = "127.0.0.1") -> EdgeEnd:
    """Connect to a port."""
    end = EdgeEnd()
    await asyncio.get_running_loop().create_connection(lambda: PlainEdge(end), host, port)
    return end


# --- the contract


async def check_contract(make: Callable[[], object]) -> None:
    """Everything that a half-closeable connection owes. `make` gives an async context manager of `Ends`."""
    for check in CHECKS:
        async with make() as ends:  # type: ignore[attr-defined]  # see above
            await check(ends)


async def bytes_go_both_ways(ends: Ends) -> None:
    near, far = ends.near, ends.far
    near.send(b"there")
    far.send(b"and back")
    await until(lambda: far.data == b"there" and near.data == b"and back")
    assert near.events == far.events == ["data"]
    await end_well(ends)


async def the_opener_ends_first(ends: Ends) -> None:
    await _one_ends_first(ends.near, ends.far)


async def the_acceptor_ends_first(ends: Ends) -> None:
    await _one_ends_first(ends.far, ends.near)


async def _one_ends_first(first: End, last: End) -> None:
    first.send(b"q" * 300_000)
    first.end()
    await until(lambda: "eof" in last.events)
    assert (bytes(last.data), last.events) == (b"q" * 300_000, ["data", "eof"])
    last.send(b"a" * 2_000_000)
    await until(lambda: len(first.data) == 2_000_000)
    assert "eof" not in first.events
    last.end()
    await until(lambda: first.events[-1:] == last.events[-1:] == ["closed"])
    assert first.events == ["data", "eof", "closed"]


async def both_end_at_once(ends: Ends) -> None:
    for one in (ends.near, ends.far):
        one.send(b"last words")
        one.end()
    await until(lambda: ends.near.events[-1:] == ends.far.events[-1:] == ["closed"])
    assert ends.near.data == ends.far.data == b"last words"


async def a_reset_of_the_opener_is_a_reset(ends: Ends) -> None:
    await _one_resets(ends.near, ends.far)


async def a_reset_of_the_acceptor_is_a_reset(ends: Ends) -> None:
    await _one_resets(ends.far, ends.near)


async def _one_resets(first: End, last: End) -> None:
    first.send(b"truncat")
    await until(lambda: last.data == b"truncat")
    first.reset()
    await until(lambda: "reset" in last.events)
    assert "eof" not in last.events


async def a_reset_after_the_own_end_is_a_reset(ends: Ends) -> None:
    """The opener has all its bytes through and waits for an answer, which breaks off."""
    near, far = ends.near, ends.far
    near.send(b"question")
    near.end()
    await until(lambda: "eof" in far.events)
    far.send(b"ans")
    await until(lambda: near.data == b"ans")
    far.reset()
    await until(lambda: "reset" in near.events)
    assert "eof" not in near.events


async def who_does_not_read_holds_the_other_up(ends: Ends) -> None:
    near, far = ends.near, ends.far
    far.pause()
    sent = 0
    while sent < 256 << 20:
        if near.is_full:
            await asyncio.sleep(0.1)
            if near.is_full:
                break
        near.send(b"x" * 65536)
        sent += 65536
        await asyncio.sleep(0)
    assert near.is_full, "256 MiB went nowhere"
    far.resume()
    near.end()
    await until(lambda: "eof" in far.events, 30)
    assert len(far.data) == sent
    far.end()
    await until(lambda: near.events[-1:] == ["closed"])


async def end_well(ends: Ends) -> None:
    ends.near.end()
    ends.far.end()
    await until(lambda: ends.near.events[-1:] == ends.far.events[-1:] == ["closed"])


CHECKS = (
    bytes_go_both_ways,
    the_opener_ends_first,
    the_acceptor_ends_first,
    both_end_at_once,
    a_reset_of_the_opener_is_a_reset,
    a_reset_of_the_acceptor_is_a_reset,
    a_reset_after_the_own_end_is_a_reset,
    who_does_not_read_holds_the_other_up,
)
