"""Look-ups for probes: joined, apart from the loop's, and in nobody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from connector_agent.probe.resolver import Resolver


class Names:
    """`getaddrinfo` that waits until it may answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.error: OSError | None = None

    def __call__(self, host: str, port: int, **kinds: Any) -> list[Any]:
        self.asked.append(host)
        assert kinds == {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
        assert self.may_answer.wait(10)
        if self.error is not None:
            raise self.error
        return [(2, 1, 6, "", ("192.0.2.1", port))]


async def test_a_real_name() -> None:
    found = await Resolver()("localhost", 80)
    assert found[0][4][:2] in {("127.0.0.1", 80), ("::1", 80)}


async def test_one_look_up_for_all_who_ask_for_a_name_however_long_it_takes() -> None:
    names = Names()
    resolver = Resolver(names)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await resolver("slow.test", 80)
    assert names.asked == ["slow.test"]
    waiting = [asyncio.Task(resolver("slow.test", 80)), asyncio.Task(resolver("other.test", 80))]
    await asyncio.sleep(0.05)
    names.may_answer.set()
    assert [found[0][4] for found in await asyncio.gather(*waiting)] == [("192.0.2.1", 80)] * 2
    assert sorted(names.asked) == ["other.test", "slow.test"]
    assert repr(resolver) == "<Resolver 0 look-ups>"
    await resolver("slow.test", 80)
    assert len(names.asked) == 3, "and anew when it is through"


async def test_a_name_that_is_none() -> None:
    names = Names()
    names.error = socket.gaierror(-2, "Name or service not known")
    resolver = Resolver(names)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await resolver("nowhere.test", 80)
    names.may_answer.set()  # nobody fetches that error, and nobody complains
    with pytest.raises(socket.gaierror):
        await resolver("nowhere.test", 80)
    with pytest.raises(UnicodeError):
        await Resolver()("a" * 70 + ".test", 80)
