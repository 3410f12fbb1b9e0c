"""How tunnels end: what was said last leaves before them, within bounded time."""

from __future__ import annotations

from typing import Any, cast

import pytest

from connector_agent.dialer import Dialer
from connector_agent.tunnels import GOODBYE, Tunnels
from shared.errors import FAULTS
from shared.protocol import MemoryBudget, Stream
from shared.tunnel.gaps import GapWatch
from tests.connector_agent.kit import run, wait
from tests.connector_agent.relay_kit import Relay

DRAINING = FAULTS["connector-draining"].wire
LOST = FAULTS["tunnel-lost"].wire


class Asked:
    """The relay's StreamHandler of a push."""

    def __init__(self) -> None:
        self.resets: list[tuple[int, bool]] = []

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.resets.append((wire_code, refused))


class Connector(Relay):
    """A connector whose pushes never end, and its relay."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Stream] = []
        self.asked = Asked()
        self.tunnels = Tunnels(
            [("relay.test", 443)], cast(Dialer, self), self._on_stream, lambda: {"t": "http"},
            count=1, budget=MemoryBudget(), gaps=GapWatch(self.loop),
        )  # fmt: skip

    async def begin(self) -> None:
        self.tunnels.start()
        await wait(1.0)
        self.ends[0].link.open_stream(cast(Any, self.asked), b"head", b"x", end=True)
        await wait(0.1)

    def _on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        self.streams.append(stream)

    async def stop(self) -> float:
        """End the pushes, then the tunnels, as the app does; how long that took."""
        for stream in self.streams:
            stream.reset(DRAINING, refused=True)
        began = self.loop.time()
        await self.tunnels.close()
        return self.loop.time() - began


@pytest.mark.parametrize("drains", [True, False])
def test_resets_leave_before_the_tunnels_end(drains: bool) -> None:
    async def tell() -> None:
        connector = Connector()
        await connector.begin()
        if drains:
            began = connector.loop.time()
            await connector.tunnels.drain(5.0)
            assert connector.loop.time() - began == pytest.approx(5.0)
        assert connector.asked.resets == []
        assert await connector.stop() < 0.1
        assert connector.asked.resets == [(DRAINING, True)]
        await wait(0.1)
        assert connector.open == []

    run(tell)


def test_a_relay_that_does_not_answer_cannot_hold_up_the_end() -> None:
    async def tell() -> None:
        connector = Connector()
        await connector.begin()
        connector.ends[0].transport.drop()
        assert await connector.stop() <= GOODBYE + 0.1
        assert connector.tunnels.open_count == 0
        connector.ends[0].link.abort()
        await wait(0.1)

    run(tell)
