"""The listener for connectors: TCP, TLS and WebSocket handshakes, admission, then a link for each tunnel.

arrive ─▶ HandshakeGate ─▶ TLS ─▶ HTTP request ─▶ admit() ─▶ 101 ─▶ HELLO ─▶ Attendance ─▶ Registry
                                                      └────▶ 401, 403, … as a problem, before any state is made
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from cloud_relay.admit import Identity, Policy, Refusal, admit, judge_again
from cloud_relay.attendance import Attendance, Attendant
from cloud_relay.handshake_gate import Arrival, HandshakeGate
from cloud_relay.registry import Registry
from cloud_relay.sources import source_key
from shared.errors import FAULTS, Fault
from shared.http.problem import problem_response
from shared.logs import get_logger, log_limited
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket import HANDSHAKE_TIMEOUT
from shared.tunnel.websocket_server import ServerTransport, UpgradeRequest

BACKLOG: Final = 4096
"""Connections that the kernel holds until we take them."""

ATTACH_RATE: Final = 300.0
"""Tunnels a second that this process takes without falling behind: the reason of the advice in HELLO."""

RECHECK_INTERVAL: Final = 5.0
"""Seconds between two looks at the certificates of sessions that are attached."""

_INVALID_PURPOSE: Final = 26
"""X509_V_ERR_INVALID_PURPOSE: OpenSSL itself turns away a certificate that is for servers only."""

_CHALLENGE: Final = ((b"WWW-Authenticate", b'Mutual-TLS realm="qanat"'),)

ConnectorKey = tuple[str, str, str]
"""(tenant, location, connector)."""

log = get_logger("relay.tunnels")


class TunnelLimits(NamedTuple):
    """How much knocking is borne. `handshake_timeout` in seconds."""

    handshakes: int = 512
    handshakes_per_source: int = 128
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    tunnels: int = 20_000
    tunnels_per_connector: int = 64
    """A connector holds two, and for a while those that it has lost: no one connector can take all places."""


@dataclass(slots=True)
class TunnelCounts:
    """What was seen since the start: `refused` by code of the catalogue, `failed` ended without an answer of ours."""

    accepted: int = 0
    failed: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class TunnelListener:
    """One address for connectors. `tls` and `policy` may be replaced at any time, and count from then on.

    Three endings: `stop_accepting`, then `drain` with grace or `close`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext,
        policy: Policy,
        registry: Registry,
        *,
        budget: MemoryBudget,
        gaps: GapWatch,
        settings: Settings | None = None,
        limits: TunnelLimits | None = None,
        software: str = "qanat",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.loop = loop
        self.tls = tls
        self.policy = policy
        self.registry = registry
        self.limits = limits or TunnelLimits()
        self.counts = TunnelCounts()
        self.gate = HandshakeGate(self.limits.handshakes, self.limits.handshakes_per_source)
        self.buffers = ReadBuffers()
        self._attendance = Attendance(loop, registry)
        self._budget = budget
        self._gaps = gaps
        self._settings = settings or Settings()
        self._software = software
        self._instance = secrets.token_hex(8)
        self._wall_clock = wall_clock
        self._server: asyncio.Server | None = None
        self._links: dict[Link, ConnectorKey] = {}
        self._held: dict[ConnectorKey, int] = {}
        self._knocking: set[ServerTransport] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._recheck_timer: asyncio.TimerHandle | None = None

    # --- life

    async def listen(self, host: str | None, port: int) -> None:
        """Bind and accept. Raises OSError when the address cannot be had."""
        self._server = await self.loop.create_server(
            lambda: _Doorstep(self), host, port, backlog=BACKLOG, reuse_address=True
        )
        self._recheck_timer = self.loop.call_later(RECHECK_INTERVAL, self._recheck_on_timer)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound: (host, port), the port never 0."""
        sockets = self._server.sockets if self._server is not None else ()
        return [sock.getsockname()[:2] for sock in sockets]

    def stop_accepting(self) -> None:
        """Close the port. Tunnels stay; handshakes in progress end."""
        if self._server is not None:
            self._server.close()
        self.gate.drop_waiting()
        for transport in list(self._knocking):
            transport.abort()

    async def drain(self, grace: float) -> None:
        """Announce the end to all connectors, let pushes finish for `grace` seconds, then close.

        When cancelled, the port is closed and what is left drains on: `close` ends it.
        """
        self.stop_accepting()
        for link in list(self._links):
            link.drain(grace)
        try:
            async with asyncio.timeout(grace):
                await self._is_empty.wait()
        except TimeoutError:
            pass
        for link in list(self._links):
            link.close("going-away")

    async def close(self) -> None:
        """End everything at once, and wait until the port is free."""
        self.stop_accepting()
        if self._recheck_timer is not None:
            self._recheck_timer.cancel()
        for link in list(self._links):
            link.abort()
        await self._is_empty.wait()
        if self._server is not None:
            await self._server.wait_closed()

    # --- who is here

    def recheck(self) -> int:
        """Judge all sessions again, now: call it after a revocation or a reload. Returns how many had to go."""
        now = self._now()
        ended = 0
        for session in self.registry.sessions():
            refusal = judge_again(session.identity, now, self.policy)
            if refusal is not None:
                ended += 1
                self.registry.detach(session)
                session.link.close(refusal.fault.code, refusal.detail)
        return ended

    def retell_trust(self) -> None:
        """placeholder until the renewal's sessions are merged"""

    def hint(self, key: ConnectorKey, within: float) -> int:
        """placeholder until the renewal's sessions are merged"""
        return 0

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which connectors should spread when they all lost this relay (design: at least one second)."""
        return max(1.0, len(self.registry) / ATTACH_RATE)

    # --- the steps of one connection, called by what is below

    def begin(self, raw: asyncio.Transport, source: str, peer: str) -> None:
        """Start the handshake of a connection whose turn it is."""
        if raw.is_closing():
            self.gate.leave(source)
            return
        knock = _Knock(self, source, peer)
        transport = ServerTransport(self.loop, self.tls, self.buffers, knock, self.limits.handshake_timeout)
        self._knocking.add(transport)
        try:
            raw.set_protocol(transport)
            transport.connection_made(raw)
            raw.resume_reading()
        except Exception as error:  # its place may not be lost for good
            log.error("a handshake could not begin, by a bug of ours", exc_info=error)
            raw.abort()
            self._left(transport, source)

    def judge(self, request: UpgradeRequest) -> Identity | Refusal:
        """Admission: by the certificate, then by whether there is room."""
        verdict = admit(request.certificate, request.path, self._now(), self.policy)
        if isinstance(verdict, Refusal):
            return verdict
        if len(self._links) >= self.limits.tunnels:
            return Refusal(FAULTS["overloaded"])
        if self._held.get(verdict.key, 0) >= self.limits.tunnels_per_connector:
            return Refusal(FAULTS["overloaded"], f"{verdict} holds too many tunnels")
        return verdict

    def refused(self, fault: Fault, detail: str, peer: str) -> bytes:
        """Count and log a refusal; the answer to send."""
        self.counts.refused[fault.code] = self.counts.refused.get(fault.code, 0) + 1
        log_limited(log, "warning", fault.code, "tunnel refused", code=fault.code, peer=peer, detail=detail)
        return problem_response(
            fault, "", keep_alive=False, detail=detail or None, now=self._wall_clock(),
            extra_headers=_CHALLENGE if fault.status == 401 else (),
        )  # fmt: skip

    def welcome(self, identity: Identity, transport: ServerTransport, source: str) -> MessageReceiver:
        """The WebSocket is open: say HELLO."""
        self._left(transport, source)
        self.counts.accepted += 1
        attendant = Attendant(self.loop, self._attendance, identity, self._ended)
        link = Link(
            Role.RELAY, attendant, self._hello(), settings=self._settings, budget=self._budget, gaps=self._gaps,
            loop=self.loop,
        )  # fmt: skip
        self._links[link] = identity.key
        self._held[identity.key] = self._held.get(identity.key, 0) + 1
        self._is_empty.clear()
        link.start(transport)
        return link

    def failed(
        self, transport: ServerTransport, source: str, error: BaseException | None, *, was_refused: bool
    ) -> None:
        """A handshake ended without a tunnel."""
        self._left(transport, source)
        if was_refused:
            return
        self.counts.failed += 1
        if isinstance(error, ssl.SSLCertVerificationError):
            code = "certificate-wrong-usage" if error.verify_code == _INVALID_PURPOSE else "certificate-foreign"
            self.refused(FAULTS[code], error.verify_message, transport.describe())
        else:
            log_limited(
                log, "info", "handshake", "no handshake", peer=transport.describe(), error=str(error or "closed")
            )

    # --- within

    def _left(self, transport: ServerTransport, source: str) -> None:
        if transport in self._knocking:
            self._knocking.remove(transport)
            self.gate.leave(source)

    def _ended(self, link: Link) -> None:
        key = self._links.pop(link)
        if self._held[key] > 1:
            self._held[key] -= 1
        else:
            del self._held[key]
        if not self._links:
            self._is_empty.set()

    def _hello(self) -> Hello:
        return Hello(
            software=self._software,
            instance=self._instance,
            session=secrets.token_hex(8),
            clock=int(self.loop.time() * 1e6),
            wall=self._wall_clock(),
            reconnect_spread=self.reconnect_spread,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), UTC)

    def _recheck_on_timer(self) -> None:
        self._recheck_timer = self.loop.call_later(RECHECK_INTERVAL, self._recheck_on_timer)
        self.recheck()


class _Doorstep(asyncio.Protocol):
    """A TCP connection before its turn: nothing is read from it."""

    def __init__(self, listener: TunnelListener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast(asyncio.Transport, transport)
        raw.pause_reading()
        name = raw.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else "unknown"
        source = source_key(peer)
        self._listener.gate.enter(Arrival(source, lambda: self._listener.begin(raw, source, peer), raw.abort))


class _Knock:
    """The Acceptor of one connection."""

    __slots__ = ("_identity", "_listener", "_peer", "_source", "_was_refused")

    def __init__(self, listener: TunnelListener, source: str, peer: str) -> None:
        self._listener = listener
        self._source = source
        self._peer = peer
        self._identity: Identity | None = None
        self._was_refused = False

    def decide(self, request: UpgradeRequest) -> bytes | None:
        self._peer = request.peer
        verdict = self._listener.judge(request)
        if isinstance(verdict, Refusal):
            self._was_refused = True
            return self._listener.refused(verdict.fault, verdict.detail, request.peer)
        self._identity = verdict
        return None

    def refuse(self, fault_code: str, detail: str) -> bytes:
        self._was_refused = True
        return self._listener.refused(FAULTS[fault_code], "", self._peer)

    def opened(self, transport: ServerTransport) -> MessageReceiver:
        if self._identity is None:
            raise RuntimeError("opened without having been admitted")
        return self._listener.welcome(self._identity, transport, self._source)

    def failed(self, transport: ServerTransport, error: BaseException | None) -> None:
        self._listener.failed(transport, self._source, error, was_refused=self._was_refused)
