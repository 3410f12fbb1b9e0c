"""Connectors that come to the old process while it hands over: passed on, and never more than can be taken."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from cloud_relay.handover import predecessor, steps
from cloud_relay.handover.predecessor import Predecessor
from cloud_relay.handover.steps import _Forward
from cloud_relay.handover.successor import Successor
from shared.channel import Channel
from shared.tcp.head import Ends

ENDS = Ends("192.0.2.1", 1000, "192.0.2.2", 443)


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.0)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


async def test_what_comes_before_it_can_be_taken_is_kept_the_newest_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessor, "MAX_PASSED", 3)
    ours, theirs = Channel.pair()
    channel = Channel(theirs)
    known = Predecessor(channel)
    known.start()
    pairs = [socket.socketpair() for _ in range(5)]
    for number, (_, passed) in enumerate(pairs):
        ours.send({"say": "connector", "number": number}, passed)
    ours.send({"say": "take-state"})
    assert await known.wait_for("take-state", 5.0)
    taken: list[tuple[int, socket.socket]] = []
    known.take_passed(lambda message, sock: taken.append((message["number"], sock)))
    assert [number for number, _ in taken] == [2, 3, 4]
    assert [is_closed(client) for client, _ in pairs] == [True, True, False, False, False]
    known.stop()
    channel.close()
    ours.close()
    for sock in (*(client for client, _ in pairs), *(sock for _, sock in taken)):
        sock.close()


async def test_one_that_takes_nothing_is_passed_no_more_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_PASSED", 2)
    ours, theirs = Channel.pair()
    successor = Successor(cast(Any, None), ours, lambda: None)
    while not ours.waiting:
        ours.send({"text": "x" * 60_000})
    clients = []
    for _ in range(3):
        client, server = socket.socketpair()
        _Forward(successor).take(server, ENDS, "relay.example.com")
        clients.append(client)
    assert [is_closed(client) for client in clients] == [False, True, True]
    assert ours.waiting == 2
    successor.let_go()
    await asyncio.sleep(0)
    for sock in (theirs, *clients):
        sock.close()
