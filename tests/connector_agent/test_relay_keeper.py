"""A keeper's tunnels to a relay that fails, drains and advises as it likes: in virtual time, over memory."""

from __future__ import annotations

import itertools
from typing import Any, cast

from connector_agent.dialer import Dialer
from connector_agent.relay_keeper import RelayKeeper
from connector_agent.tunnel import Tunnel
from shared.protocol import Hello, Role, Stream
from shared.tasks import cancel, spawn
from shared.tunnel.link import Link
from tests.connector_agent.kit import run, wait
from tests.connector_agent.relay_kit import Relay, RelayEnd


class Kept(Relay):
    """A relay, and a keeper of tunnels to it."""

    def __init__(self, count: int, spread: float = 1.0) -> None:
        super().__init__(spread)
        self.keeper = RelayKeeper(
            "relay.test", 443, count, cast(Dialer, self), self._tunnel, self._own_link, jitter=lambda: 0.9
        )
        self.task = spawn(self.keeper.run(), "keeper")

    def _tunnel(self, on_change: Any) -> Tunnel:
        return Tunnel(self.loop, self._on_stream, on_change)

    def _own_link(self, tunnel: Tunnel) -> Link:
        return self.link(Role.CONNECTOR, tunnel, Hello(instance="i", targets={"t": "http"}))

    def _on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """A push that never ends."""

    async def close(self) -> None:
        self.keeper.stop_dialling()
        await cancel(self.task)
        for tunnel in self.keeper.all_tunnels():
            if tunnel.link is not None:
                tunnel.link.abort()
        await wait(0.01)


def test_a_tunnel_that_we_failed_is_no_refusal_of_the_relays() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        await wait(1.0)
        relay.ends[0].transport.send(b"\0")  # half a header
        await wait(0.001)
        error = relay.keeper.error
        assert error is not None
        assert (error.code, error.is_refusal) == ("protocol-error", False)
        await wait(1.0)
        assert relay.keeper.tunnels
        relay.ends[1].link.close("duplicate-instance")
        await wait(1.0)
        assert not relay.keeper.tunnels
        assert relay.keeper.error is not None
        assert relay.keeper.error.is_refusal
        assert relay.keeper.next_try_at > relay.loop.time() + 10
        await relay.close()

    run(tell)


def drain_with_a_push(end: RelayEnd) -> None:
    """Drain, and never let the last push end."""
    if end.link.can_open:
        end.link.open_stream(cast(Any, end), b"head", b"x")
        end.link.drain(3600.0)


def test_a_relay_that_drains_every_tunnel_gets_few_of_them_and_slowly() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.at_once = lambda end: relay.loop.call_later(0.05, drain_with_a_push, end)
        await wait(5.0)
        for _ in range(50):
            await wait(0.1)
            assert len(relay.keeper.retiring) <= 2
            assert len(relay.open) <= 2 + 2
        assert 10 <= len(relay.dialled_at) <= 30
        await relay.close()

    run(tell)


def test_a_drained_tunnel_ends_after_a_minute_whatever_the_relay_says() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        await wait(10.0)
        drain_with_a_push(relay.ends[0])
        await wait(1.0)
        assert len(relay.keeper.tunnels) == len(relay.keeper.retiring) == 1
        await wait(57.0)
        assert not relay.ends[0].is_closed
        await wait(3.0)
        assert relay.ends[0].is_closed
        assert relay.open == relay.ends[1:]
        assert not relay.keeper.retiring
        await relay.close()

    run(tell)


def test_a_tunnel_that_served_for_a_while_is_replaced_at_once() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        for number in range(1, 6):
            await wait(10.0)
            began = relay.loop.time()
            relay.ends[-1].link.drain(5.0)
            await wait(1.0)
            assert relay.dialled_at[number] - began < 0.25
        await relay.close()

    run(tell)


def test_no_relay_can_send_a_connector_away_for_an_hour() -> None:
    async def tell() -> None:
        relay = Kept(count=1, spread=3600.0)
        relay.at_once = lambda end: end.link.abort()
        await wait(3600.0)
        pauses = [after - before for before, after in itertools.pairwise(relay.dialled_at)]
        assert 100.0 < max(pauses) <= 120.0
        await relay.close()

    run(tell)
