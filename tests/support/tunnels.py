"""A relay's tunnel listener and a connector's tunnels on loopback, with certificates of a PKI of their own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from cloud_relay.admit import Identity, Policy
from cloud_relay.identity.records import ConnectorKey, Standing
from cloud_relay.registry import Registry
from cloud_relay.tunnels import TunnelLimits, TunnelListener
from connector_agent.credentials import Credentials
from connector_agent.dialer import Dialer, ProxyChoice
from connector_agent.tunnels import Tunnels
from shared.clock import TrustedClock
from shared.pki.tls import KeyPair, tunnel_server_context
from shared.protocol import MemoryBudget, Settings, Stream, StreamEnd
from shared.tunnel.gaps import GapWatch
from tests.support.development import TRUST_DOMAIN, Pki

KEY = ("acme", "walldorf", "frun")


@dataclass
class TestPolicy:
    """A policy that a test changes."""

    __test__ = False
    trust_domain: str = TRUST_DOMAIN
    locations: set[tuple[str, str]] = field(default_factory=lambda: {("acme", "walldorf")})
    revoked: set[str] = field(default_factory=set)
    blocked: set[tuple[str, str, str]] = field(default_factory=set)

    def knows(self, tenant: str, location: str) -> bool:
        return (tenant, location) in self.locations

    def connector_of(self, certificate: x509.Certificate) -> ConnectorKey | str | None:
        return None

    def trusts(self, tenant: str, issuers: frozenset[str]) -> bool:
        return True

    def standing(self, identity: Identity, now: datetime) -> Standing:
        if identity.fingerprint in self.revoked:
            return Standing.REVOKED
        if identity.key in self.blocked:
            return Standing.BLOCKED
        if now < identity.not_before:
            return Standing.NOT_YET_VALID
        return Standing.EXPIRED if now > identity.not_after else Standing.GOOD

    def may_be_taken_in(self, identity: Identity, now: datetime) -> bool:
        return False


class Echo:
    """Answers each push with its head and body; a StreamHandler."""

    def __init__(self, stream: Stream, head: bytes, body: bytes) -> None:
        self.stream = stream
        self.head = head
        self.body = body

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        raise AssertionError("an acceptor gets no answer")

    def on_data(self, data: bytes, end: bool) -> None:
        self.stream.consumed(len(data))
        self.body += data
        if end:
            self.stream.answer(self.head, self.body, end=True)

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.body = b""

    def on_writable(self) -> None:
        pass


def echo(stream: Stream, head: bytes, body: bytes, end: bool) -> None:
    """An on_stream for a connector."""
    handler = Echo(stream, head, b"")
    stream.handler = handler
    handler.on_data(body, end)


class Asked:
    """The relay's side of one push: collects the answer."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self.stream: StreamEnd | None = None
        self._head = b""
        self._body = b""

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self._head = head
        self.on_data(body, end)

    def on_data(self, data: bytes, end: bool) -> None:
        assert self.stream is not None
        self.stream.consumed(len(data))
        self._body += data
        if end:
            self.done.set_result((self._head, self._body))

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.done.set_exception(ConnectionResetError(f"reset with {wire_code}"))

    def on_writable(self) -> None:
        pass


class World:
    """A relay's listener, and connectors that dial it. `serve` and `connect` may be called again after an end."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.pki = Pki(folder)
        self.policy = TestPolicy()
        self.relay_policy: Policy = self.policy
        self.settings = settings
        self.gaps = GapWatch(self.loop)
        self.elapsed = 0.0
        """Seconds by which the clock of the relay's is ahead of the loop's."""
        self.wall_clock: Callable[[], float] = time.time
        self.clock = TrustedClock(self._wall, self._monotonic)
        self.registry = Registry(self.loop)
        self.port = 0
        self.listener: TunnelListener | None = None
        self.connectors: list[Tunnels] = []

    def _wall(self) -> float:
        return self.wall_clock()

    def _monotonic(self) -> float:
        return self.loop.time() + self.elapsed

    async def serve(
        self, limits: TunnelLimits | None = None, certificate: KeyPair | None = None, **parts: Any
    ) -> TunnelListener:
        pair = certificate or self.pki.relay()
        self.registry = Registry(self.loop)
        listener = TunnelListener(
            self.loop,
            tunnel_server_context(pair.certificate, pair.key, self.pki.ca),
            self.relay_policy,
            self.registry,
            budget=MemoryBudget(),
            gaps=self.gaps,
            limits=limits,
            settings=self.settings,
            clock=self.clock,
            **parts,
        )
        await listener.listen("127.0.0.1", self.port)
        self.port = listener.addresses[0][1]
        self.listener = listener
        return listener

    async def serve_again(self, certificate: KeyPair) -> TunnelListener:
        """At the same port, with another certificate."""
        if self.listener is not None:
            await self.listener.close()
        return await self.serve(certificate=certificate)

    def connect(
        self,
        pair: KeyPair | None = None,
        *,
        ca: Path | None = None,
        host: str = "localhost",
        port: int = 0,
        proxies: ProxyChoice | None = None,
        targets: Mapping[str, str] | None = None,
        count: int = 2,
    ) -> Tunnels:
        pair = pair or self.pki.connector()
        tunnels = Tunnels(
            [(host, port or self.port)],
            Dialer(Credentials(pair.certificate, pair.key, ca or self.pki.ca).contexts, proxies),
            echo,
            lambda: targets if targets is not None else {"frun": "http"},
            count=count,
            budget=MemoryBudget(),
            gaps=self.gaps,
            settings=self.settings,
        )
        self.connectors.append(tunnels)
        tunnels.start()
        return tunnels

    async def push(self, body: bytes = b"body") -> tuple[bytes, bytes]:
        session = self.registry.choose(*KEY)
        assert session is not None, "no session takes a push"
        asked = Asked()
        asked.stream = session.link.open_stream(asked, b"head", body, end=True)
        return await asked.done

    async def until(self, condition: Callable[[], bool], limit: float = 10.0) -> float:
        """Wait; how long it took."""
        started = self.loop.time()
        async with asyncio.timeout(limit):
            while not condition():
                await asyncio.sleep(0.005)
        return self.loop.time() - started

    async def until_open(self, count: int = 2) -> float:
        return await self.until(lambda: self.registry.count(KEY) >= count)

    def error_of(self, tunnels: Tunnels) -> str | None:
        """The code of the last failure."""
        error = tunnels.keepers[0].error
        return error.code if error is not None else None

    async def close(self) -> None:
        for tunnels in self.connectors:
            await tunnels.close()
        if self.listener is not None:
            await self.listener.close()


@contextlib.asynccontextmanager
async def world(folder: Path, settings: Settings | None = None) -> AsyncIterator[World]:
    made = World(folder, settings)
    try:
        yield made
    finally:
        await made.close()
