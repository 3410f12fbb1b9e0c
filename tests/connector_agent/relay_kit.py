"""The relay's end of tunnels without a network: real links over memory, for virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from connector_agent.dialer import ProxyChoice
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.memory import MemoryTransport, memory_pair


class RelayEnd:
    """The relay's LinkHandler of one tunnel, which does `at_once` when HELLOs are exchanged."""

    def __init__(self, relay: Relay, transport: MemoryTransport, worker: int = 0) -> None:
        self.relay = relay
        self.transport = transport
        self.worker = worker
        hello = Hello(reconnect_spread=relay.spread, renew_only=relay.renew_only, worker=worker, workers=relay.workers)
        self.link = relay.link(Role.RELAY, self, hello)
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
    """Takes the place of the Dialer; each dial makes a pair of links over memory."""

    def __init__(self, spread: float = 1.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.spread = spread
        self.renew_only = False
        self.workers = 1
        """Processes of this relay. Who asks for none of them comes to the first, …"""
        self.away: set[int] = set()
        """… as does who asks for one of these."""
        self.ends: list[RelayEnd] = []
        self.dialled_at: list[float] = []
        self.at_once: Any = lambda end: None
        self.proxies = ProxyChoice()

    def link(self, role: Role, handler: Any, hello: Hello) -> Link:
        return Link(
            role, handler, hello, settings=Settings(), budget=MemoryBudget(), gaps=GapWatch(self.loop), loop=self.loop
        )

    async def dial(self, host: str, port: int, open_receiver: Any, worker: int | None = None) -> MemoryTransport:
        self.dialled_at.append(self.loop.time())
        ours, theirs = memory_pair(self.loop)
        end = RelayEnd(self, theirs, 0 if worker is None or worker in self.away else worker)
        self.ends.append(end)
        ours.receiver = open_receiver(ours)
        end.link.start(theirs)
        return ours

    @property
    def open(self) -> list[RelayEnd]:
        return [end for end in self.ends if not end.is_closed]
