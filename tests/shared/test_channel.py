"""Messages between two processes: in order, sockets along, and the end of the other side after all it said."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from shared.channel import MAX_MESSAGE, Channel, batches


class End:
    """One end, and what it heard."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard: list[Any] = []
        self.passed: list[socket.socket] = []
        self.closed = 0
        self.news = asyncio.Event()

    def start(self) -> None:
        self.channel.start(asyncio.get_running_loop(), self._on_message, self._on_closed)

    def _on_message(self, message: dict[str, Any], passed: socket.socket | None) -> None:
        self.heard.append(message)
        if passed is not None:
            self.passed.append(passed)
        self.news.set()

    def _on_closed(self) -> None:
        self.closed += 1
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.heard) < count and not self.closed:
                self.news.clear()
                await self.news.wait()

    async def until_closed(self) -> None:
        async with asyncio.timeout(5):
            while not self.closed:
                self.news.clear()
                await self.news.wait()


def pair() -> tuple[End, End]:
    ours, theirs = Channel.pair()
    return End(ours), End(Channel(theirs))


async def test_what_is_said_before_anybody_listens_is_heard_in_order_and_then_the_end() -> None:
    one, other = pair()
    for number in range(100):
        one.channel.send({"say": number})
    one.channel.close()
    other.start()
    await other.until_closed()
    assert [message["say"] for message in other.heard] == list(range(100))
    assert other.closed == 1
    assert not other.channel.is_open
    other.channel.send({"say": "into nothing"})


async def test_more_than_the_kernel_holds_waits_and_arrives() -> None:
    one, other = pair()
    one.start()
    text = "x" * 60_000
    for number in range(50):
        one.channel.send({"say": number, "text": text})
    assert "0 waiting" not in repr(one.channel)
    other.start()
    await other.until(50)
    assert [message["say"] for message in other.heard] == list(range(50))
    assert "0 waiting" in repr(one.channel)
    one.channel.close()
    other.channel.close()


async def test_what_waits_since_before_the_start_goes_on_with_it() -> None:
    one, other = pair()
    for number in range(50):
        one.channel.send({"say": number, "text": "x" * 60_000})
    assert one.channel.waiting
    other.start()
    await asyncio.sleep(0)
    one.start()
    await other.until(50)
    assert [message["say"] for message in other.heard] == list(range(50))
    assert not one.channel.waiting
    one.channel.close()
    other.channel.close()


async def test_sockets_go_along_and_are_the_others_then() -> None:
    one, other = pair()
    other.start()
    mine, passed = socket.socketpair()
    number = passed.fileno()
    one.channel.send({"say": "connector"}, passed)
    await other.until(1)
    assert passed.fileno() == -1
    other.passed[0].sendall(b"still open")
    assert mine.recv(100) == b"still open"
    assert not os.get_inheritable(other.passed[0].fileno())
    assert number >= 0
    for sock in (mine, *other.passed):
        sock.close()
    one.channel.close()
    other.channel.close()


async def test_sockets_that_nobody_will_get_are_closed() -> None:
    one, other = pair()
    one.start()
    other.channel.close()
    await one.until_closed()
    mine, passed = socket.socketpair()
    one.channel.send({"say": "connector"}, passed)
    assert passed.fileno() == -1
    mine.close()
    busy, _other = pair()
    kept = [socket.socketpair() for _ in range(5)]
    for _ in range(20):
        busy.channel.send({"text": "x" * 60_000})
    for _, theirs in kept:
        busy.channel.send({}, theirs)
    busy.channel.close()
    assert [theirs.fileno() for _, theirs in kept] == [-1] * 5
    for ours, _ in kept:
        ours.close()
    _other.channel.close()


def test_too_much_for_one_message_is_refused_and_can_be_said_in_parts() -> None:
    ours, theirs = Channel.pair()
    with pytest.raises(ValueError, match="a message of"):
        ours.send({"text": "x" * MAX_MESSAGE})
    assert [len(batch) for batch in batches(range(7), 3)] == [3, 3, 1]
    assert list(batches([], 3)) == []
    ours.close()
    theirs.close()
