"""What every message transport keeps: one suite for memory, Unix sockets and WebSockets, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shared.tunnel.transport import HIGH_WATER, MAX_MESSAGE
from tests.support.transports import (
    Pair,
    Recorder,
    Scenario,
    run_in_memory,
    run_locally_on_asyncio,
    run_locally_on_uvloop,
    run_on_asyncio,
    run_on_uvloop,
)

Run = Callable[[Scenario], None]

SIZES = [1, 2, 124, 125, 126, 127, 128, 2048, 16383, 16384, 16385, 32768, 65521, 65535, MAX_MESSAGE]


RUNS = {
    "memory": run_in_memory,
    "local-asyncio": run_locally_on_asyncio,
    "local-uvloop": run_locally_on_uvloop,
    "asyncio": run_on_asyncio,
    "uvloop": run_on_uvloop,
}


@pytest.fixture(params=RUNS.values(), ids=list(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.param
    return runner


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Pump:
    """Sends as the link does: while the transport holds HIGH_WATER or less, then again when it says so."""

    def __init__(self, recorder: Recorder, messages: list[bytes]) -> None:
        self.transport = recorder.transport
        self.left = list(reversed(messages))
        self.most = 0
        recorder.on_writable = self.pump
        self.pump()

    def pump(self) -> None:
        while self.left and self.transport.buffered() <= HIGH_WATER:
            self.transport.send(self.left.pop())
            self.most = max(self.most, self.transport.buffered())


def test_messages_keep_order_boundaries_and_content(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        messages = [pattern(size) for size in SIZES]
        for message in messages:
            pair.near.transport.send(message)
            pair.far.transport.send(message[::-1])
        await pair.far.until(lambda: len(pair.far.messages) == len(SIZES))
        await pair.near.until(lambda: len(pair.near.messages) == len(SIZES))
        assert pair.far.messages == messages
        assert pair.near.messages == [message[::-1] for message in messages]
        assert all(type(message) is bytes for message in pair.near.messages + pair.far.messages)

    run(scenario)


def test_many_small_messages_sent_at_once(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        messages = [b"%d" % number for number in range(2000)]
        for message in messages:
            pair.near.transport.send(message)
        await pair.far.until(lambda: len(pair.far.messages) == 2000)
        assert pair.far.messages == messages

    run(scenario)


@pytest.mark.parametrize("size", [3000, 40_000, MAX_MESSAGE])
def test_both_directions_at_once_with_backpressure(run: Run, size: int) -> None:
    async def scenario(pair: Pair) -> None:
        count = 8 * 1024 * 1024 // size
        message = pattern(size)
        pumps = [Pump(pair.near, [message] * count), Pump(pair.far, [message] * count)]
        for recorder in (pair.near, pair.far):
            await recorder.until(lambda recorder=recorder: len(recorder.messages) == count)  # type: ignore[misc]
            assert set(recorder.messages) == {message}
            assert recorder.alive > 0
        for pump in pumps:
            assert pump.most <= HIGH_WATER + MAX_MESSAGE + 1024

    run(scenario)


def test_a_receiver_may_answer_within_the_call(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.far.then = pair.far.transport.send
        for size in SIZES:
            pair.near.transport.send(pattern(size))
        await pair.near.until(lambda: len(pair.near.messages) == len(SIZES))
        assert pair.near.messages == [pattern(size) for size in SIZES]

    run(scenario)


def test_bytes_received_comes_before_the_message(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        seen: list[int] = []
        pair.far.then = lambda _: seen.append(pair.far.alive)
        pair.near.transport.send(b"x")
        await pair.far.until(lambda: bool(seen))
        assert seen[0] >= 1

    run(scenario)


def test_too_large_a_message_is_refused_here(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        with pytest.raises(ValueError, match="65537"):
            pair.near.transport.send(bytes(MAX_MESSAGE + 1))
        pair.near.transport.send(b"still open")
        await pair.far.until(lambda: pair.far.messages == [b"still open"])

    run(scenario)


def test_an_empty_message_is_nothing(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.near.transport.send(b"")
        pair.near.transport.send(b"x")
        await pair.far.until(lambda: bool(pair.far.messages))
        assert pair.far.messages == [b"x"]

    run(scenario)


@pytest.mark.parametrize("closer", ["near", "far"])
def test_close_delivers_what_was_sent_then_code_and_reason(run: Run, closer: str) -> None:
    async def scenario(pair: Pair) -> None:
        first, second = (pair.near, pair.far) if closer == "near" else (pair.far, pair.near)
        for _ in range(40):
            first.transport.send(pattern(30_000))
        first.transport.close(4325, "going-away")
        first.transport.send(b"too late")
        code, reason, error = await second.until_closed()
        assert (code, reason, error) == (4325, "going-away", None)
        assert second.messages == [pattern(30_000)] * 40
        code, reason, error = await first.until_closed()
        assert (code, reason, error) == (4325, "going-away", None)  # the peer's echo

    run(scenario)


def test_a_long_reason_is_cut_between_characters(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.near.transport.close(4320, "é" * 100)
        code, reason, _ = await pair.far.until_closed()
        assert (code, reason) == (4320, "é" * 60)

    run(scenario)


def test_both_close_at_once(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.near.transport.close(4001, "near")
        pair.far.transport.close(4002, "far")
        assert (await pair.near.until_closed())[:2] == (4002, "far")
        assert (await pair.far.until_closed())[:2] == (4001, "near")

    run(scenario)


def test_closing_twice_is_closing_once(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.near.transport.close(4001, "first")
        pair.near.transport.close(4002, "second")
        assert (await pair.far.until_closed())[:2] == (4001, "first")

    run(scenario)


def test_closing_from_within_a_message_stops_the_messages(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.far.then = lambda _: pair.far.transport.abort()
        for _ in range(10):
            pair.near.transport.send(b"one")
        await pair.near.until_closed()
        await pair.far.until_closed()
        assert len(pair.far.messages) < 10

    run(scenario)


@pytest.mark.parametrize("aborter", ["near", "far"])
def test_abort_is_a_loss_at_the_other_end(run: Run, aborter: str) -> None:
    async def scenario(pair: Pair) -> None:
        first, second = (pair.near, pair.far) if aborter == "near" else (pair.far, pair.near)
        first.transport.abort()
        assert first.closed == [], "never within the call"
        first.transport.send(b"too late")
        first.transport.abort()
        assert (await first.until_closed())[:2] == (None, "")
        assert (await second.until_closed())[:2] == (None, "")
        assert second.messages == []

    run(scenario)


def test_everything_is_harmless_after_the_end(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        pair.near.transport.close(1000)
        await pair.near.until_closed()
        await pair.far.until_closed()
        for recorder in (pair.near, pair.far):
            recorder.transport.send(b"x")
            recorder.transport.close(1000)
            recorder.transport.abort()
            assert recorder.transport.describe()
        await asyncio.sleep(0.01)

    run(scenario)


def test_buffered_tells_what_was_not_taken(run: Run) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.near.transport.buffered() == 0
        pair.near.transport.send(pattern(1000))
        await pair.far.until(lambda: bool(pair.far.messages))
        assert pair.near.transport.buffered() == 0

    run(scenario)
