"""Two links over the transport in memory: what only the two together can get wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import memory_pair


class Owner:
    """A LinkHandler that keeps what it is told."""

    def __init__(self) -> None:
        self.is_ready = False
        self.pushes: list[Stream] = []
        self.closed: tuple[str, str] | None = None

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.is_ready = True

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        stream.handler = Push()
        stream.consumed(len(body))
        self.pushes.append(stream)

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None: ...
    def on_renew(self, link: Link, request: bytes) -> None: ...
    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None: ...
    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None: ...
    def on_hint(self, link: Link, within: float) -> None: ...
    def on_drain(self, link: Link, timeout: float) -> None: ...
    def on_replace(self, link: Link, timeout: float) -> None: ...
    def on_usable(self, link: Link) -> None: ...

    def on_room(self, link: Link) -> bool:
        return False

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.closed = (code, detail)

    def on_handler_error(self, link: Link, error: Exception) -> None:
        raise error


class Push:
    """A StreamHandler that keeps what it is told."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.stream: Stream | None = None

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self.log.append((head, body, end))
        if self.stream is not None:
            self.stream.consumed(len(body))

    def on_data(self, data: bytes, end: bool) -> None:
        self.log.append((data, end))

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.log.append(f"reset {wire_code}")

    def on_writable(self) -> None: ...


class Pair:
    """A relay's and a connector's link, joined."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.owners = (Owner(), Owner())
        relay, connector = (
            Link(
                role, owner, Hello(), settings=Settings(), budget=MemoryBudget(1 << 24), gaps=GapWatch(loop), loop=loop
            )
            for role, owner in zip((Role.RELAY, Role.CONNECTOR), self.owners, strict=True)
        )
        ends = memory_pair(loop)
        for link, end in zip((relay, connector), ends, strict=True):
            end.receiver = link
            link.start(end)
        self.relay, self.connector = relay, connector

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_a_connectors_drain_ends_with_the_last_answer_and_loses_none() -> None:
    pair = Pair()
    await pair.settle()
    pushes = [Push() for _ in range(5)]
    for push in pushes:
        push.stream = pair.relay.open_stream(push, b"head", b"body", end=True)
    await pair.settle()
    pair.connector.drain(30.0)
    await pair.settle()
    assert [owner.closed for owner in pair.owners] == [None, None]
    for stream in pair.owners[1].pushes:
        stream.answer(b"200", b"answer", end=True)
    await pair.settle()
    assert [push.log for push in pushes] == [[(b"200", b"answer", True)]] * 5
    assert pair.owners[1].closed == ("going-away", "drained")


async def test_a_relays_drain_ends_with_the_last_push() -> None:
    pair = Pair()
    await pair.settle()
    push = Push()
    push.stream = pair.relay.open_stream(push, b"head", b"body", end=True)
    await pair.settle()
    pair.relay.drain(30.0)
    await pair.settle()
    assert pair.owners[0].closed is None
    pair.owners[1].pushes[0].answer(b"200", b"answer", end=True)
    await pair.settle()
    assert push.log == [(b"200", b"answer", True)]
    assert pair.owners[0].closed == ("going-away", "drained")


async def test_the_round_trip_is_a_pings_and_no_credits() -> None:
    pair = Pair()
    await pair.settle()
    push = Push()
    push.stream = pair.relay.open_stream(push, b"head", bytes(1 << 17), end=True)
    await pair.settle()
    assert pair.relay.rtt == float("inf")  # credit has come back, which says little
    pair.relay.ping()
    await pair.settle()
    assert pair.relay.rtt == pair.relay.last_ping[0] < 1.0
