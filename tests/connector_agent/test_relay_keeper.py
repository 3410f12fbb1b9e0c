"""A keeper's tunnels to a relay that fails, drains and advises as it likes: in virtual time, over memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from connector_agent.dialer import Dialer, ProxyChoice
from connector_agent.relay_keeper import RelayKeeper
from connector_agent.tunnel import Tunnel
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tasks import cancel, spawn
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import MemoryTransport, memory_pair
from tests.connector_agent.kit import run, wait


class RelayEnd:
    """The relay's LinkHandler of one tunnel, which does `at_once` when HELLOs are exchanged."""

    def __init__(self, relay: Relay, transport: MemoryTransport) -> None:
        self.relay = relay
        self.transport = transport
        self.link = relay.link(Role.RELAY, self, Hello(reconnect_spread=relay.spread))
        transport.receiver = self.link
        self.is_closed = False

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.relay.loop.call_soon(self.relay.at_once, self)

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.is_closed = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


class Relay:
    """Takes the place of the Dialer; each dial makes a pair of links."""

    def __init__(self, count: int = 2, spread: float = 1.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.spread = spread
        self.ends: list[RelayEnd] = []
        self.dialled_at: list[float] = []
        self.at_once: Any = lambda end: None
        self.proxies = ProxyChoice()
        self.keeper = RelayKeeper(
            "relay.test", 443, count, cast(Dialer, self), self._tunnel, self._own_link, jitter=lambda: 0.9
        )
        self.task = spawn(self.keeper.run(), "keeper")

    def link(self, role: Role, handler: Any, hello: Hello) -> Link:
        return Link(
            role, handler, hello, settings=Settings(), budget=MemoryBudget(), gaps=GapWatch(self.loop), loop=self.loop
        )

    def _tunnel(self, on_change: Any) -> Tunnel:
        return Tunnel(self.loop, self._on_stream, on_change)

    def _own_link(self, tunnel: Tunnel) -> Link:
        return self.link(Role.CONNECTOR, tunnel, Hello(instance="i", targets={"t": "http"}))

    def _on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """A push that never ends."""

    async def dial(self, host: str, port: int, open_receiver: Any) -> MemoryTransport:
        self.dialled_at.append(self.loop.time())
        ours, theirs = memory_pair(self.loop)
        end = RelayEnd(self, theirs)
        self.ends.append(end)
        ours.receiver = open_receiver(ours)
        end.link.start(theirs)
        return ours

    @property
    def open(self) -> list[RelayEnd]:
        return [end for end in self.ends if not end.is_closed]

    async def close(self) -> None:
        self.keeper.stop_dialling()
        await cancel(self.task)
        for tunnel in self.keeper.all_tunnels():
            if tunnel.link is not None:
                tunnel.link.abort()
        await wait(0.01)


def test_a_tunnel_that_we_failed_is_no_refusal_of_the_relays() -> None:
    async def tell() -> None:
        relay = Relay(count=1)
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
