"""The listener for connectors: who may come in, a link for each tunnel, and who must go again.

Entrance ─▶ admit() ─▶ link, HELLO ─▶ Attendance ─▶ Registry
        └─▶ Enrolment, for those who have no certificate yet
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cloud_relay.admit import TUNNEL_PATH, Identity, Policy, Refusal, admit, judge_again
from cloud_relay.attendance import Attendance, Attendant, DistantRival, Elsewhere, Rival
from cloud_relay.entrance import Entrance, TunnelCounts, Welcome
from cloud_relay.handshake_gate import HandshakeGate
from cloud_relay.identity.enrolment import Enrolment
from cloud_relay.identity.records import ConnectorKey
from cloud_relay.identity.sessions import RenewalDesk
from cloud_relay.identity.targets import TargetGuard
from cloud_relay.registry import Registry
from cloud_relay.tunnel_metrics import TunnelMetrics
from shared.clock import TrustedClock
from shared.errors import FAULTS, Fault
from shared.logs import get_logger
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.protocol.hello import CAPABILITIES, RENEWAL
from shared.tasks import spawn
from shared.tcp.head import Ends
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket import ENROLL_SUBPROTOCOL, HANDSHAKE_TIMEOUT
from shared.tunnel.websocket_server import ServerTransport, UpgradeRequest

BACKLOG: Final = 4096
"""Connections that the kernel holds until we take them."""

ATTACH_RATE: Final = 300.0
"""Tunnels a second that this process takes without falling behind: the reason of the advice in HELLO."""

RECHECK_INTERVAL: Final = 5.0
"""Seconds between two looks at the certificates of sessions that are attached."""

ASK_RATE: Final = ATTACH_RATE / 2
"""Tunnels a second that connectors are asked to replace: they are dialled anew at that rate."""

REPLACED_GRACE: Final = 60.0
"""Seconds for pushes to end in a tunnel that a new one has replaced after all here."""

_ASKED_AT_ONCE: Final = 6

EXPIRY_GRACE: Final = 10.0
"""Seconds that pushes get to finish in a tunnel whose certificate has expired: the connector has long dialled anew."""

log = get_logger("relay.tunnels")


class TunnelLimits(NamedTuple):
    """How much knocking is borne. `handshake_timeout` in seconds."""

    handshakes: int = 512
    handshakes_per_source: int = 128
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    tunnels: int = 20_000
    tunnels_per_connector: int = 64
    """A connector holds two, and for a while those that it has lost: no one connector can take all places."""


class Guest(NamedTuple):
    """Who holds a link. When it was admitted, by the trusted clock and by the loop's: from then on only the second
    counts, so that no wall clock set wrong ends a tunnel."""

    attendant: Attendant
    admitted_at: datetime
    since: float

    @property
    def is_attending(self) -> bool:
        """Whether pushes could still be given to it."""
        session = self.attendant.session
        return session is not None and not session.link.is_draining

    def now(self, loop_time: float) -> datetime:
        """The time at which its certificate is to be judged."""
        return self.admitted_at + timedelta(seconds=loop_time - self.since)


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
        clock: TrustedClock | None = None,
        enrolment: Enrolment | None = None,
        renewal: RenewalDesk | None = None,
        guard: TargetGuard | None = None,
    ) -> None:
        self.loop = loop
        self.tls = tls
        self.policy = policy
        self.registry = registry
        self.limits = limits or TunnelLimits()
        self.clock = clock or TrustedClock()
        self.enrolment = enrolment or Enrolment(loop, None, self.clock.timestamp)
        self.renewal = renewal
        self.guard = guard
        gate = HandshakeGate(self.limits.handshakes, self.limits.handshakes_per_source)
        self.entrance = Entrance(loop, self, gate, self.limits.handshake_timeout, self.clock.timestamp)
        self._attendance = Attendance(loop, registry, guard)
        self._budget = budget
        self._gaps = gaps
        self._settings = settings or Settings()
        self._software = software
        self._instance = secrets.token_hex(8)
        self._server: asyncio.Server | None = None
        self._links: dict[Link, Guest] = {}
        self._held: dict[ConnectorKey, int] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._recheck_timer: asyncio.TimerHandle | None = None
        self._worker, self._workers = 0, 1
        self._leaves_at = 0.0
        self._asked: set[Link] = set()
        self._suspended: Fault | None = None

    def join(self, worker: int, workers: int, elsewhere: Elsewhere) -> None:
        """Be the listener of one of several processes: connectors are told, and contests reach over all of them."""
        self._worker, self._workers = worker, workers
        self._attendance.elsewhere, self._attendance.worker = elsewhere, worker

    def count_in(self, metrics: TunnelMetrics) -> None:
        """Count tunnels there. Before the first one comes."""
        self._attendance.counts = metrics
        metrics.sessions, metrics.now = self.registry.sessions, self.loop.time

    def rival_came(self, rival: DistantRival) -> None:
        """A session was attached at another process."""
        self._attendance.rival_came(rival)

    def rival_gone(self, rival: Rival) -> None:
        """A session at another process has ended."""
        self._attendance.rival_gone(rival)

    # --- life

    async def listen(self, host: str | None, port: int) -> None:
        """Bind a port of its own, and accept. Raises OSError when the address cannot be had."""
        self._server = await self.loop.create_server(
            self.entrance.protocol, host, port, backlog=BACKLOG, reuse_address=True
        )
        self.start()

    def start(self) -> None:
        """Look at attached certificates from now on. Connections may come by `take`."""
        self._recheck_timer = self.loop.call_later(RECHECK_INTERVAL, self._recheck_on_timer)

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        """A connection arrived at a port that is not only ours. It is ours from now on."""
        spawn(self._greet(sock), "tunnel arrival")

    async def _greet(self, sock: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(self.entrance.protocol, sock)
        except OSError:  # gone already
            sock.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound itself: (host, port), the port never 0."""
        sockets = self._server.sockets if self._server is not None else ()
        return [sock.getsockname()[:2] for sock in sockets]

    def stop_accepting(self) -> None:
        """Close the port. Tunnels stay; handshakes in progress end."""
        if self._server is not None:
            self._server.close()
        self.entrance.close()

    async def ask_replacements(self, seconds: float) -> None:
        """Another process takes over: have all connectors open new tunnels, no faster than it can take them.

        The old ones serve on, until `drain`, for so many seconds at most; those that are still coming here are asked,
        too. Returns when all were asked.
        """
        self._leaves_at = self.loop.time() + seconds
        for number, link in enumerate(list(self._links), 1):
            self._ask(link)
            if number % _ASKED_AT_ONCE == 0:
                await asyncio.sleep(_ASKED_AT_ONCE / ASK_RATE)

    def stay(self) -> None:
        """It came to nothing: what has asked for replacements ends in good order once these are here."""
        self._leaves_at = 0.0

    def suspend(self, fault: Fault) -> None:
        """Turn away all connectors for this reason until `resume`, and end all tunnels, in good order."""
        self._suspended = fault
        for link in list(self._links):
            link.drain(EXPIRY_GRACE)

    def resume(self) -> None:
        """Let connectors in again."""
        self._suspended = None

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
        self.enrolment.close()
        for link in list(self._links):
            link.abort()
        await self._is_empty.wait()
        if self._server is not None:
            await self._server.wait_closed()

    # --- who is here

    @property
    def counts(self) -> TunnelCounts:
        """What came to the door."""
        return self.entrance.counts

    def recheck(self) -> int:
        """Judge all tunnels again, now: call it after a revocation or a reload. Returns how many had to go.

        What was withdrawn ends at once; what has expired, or came from a CA that is retired, in good order.
        """
        loop_time = self.loop.time()
        ended = 0
        for link, guest in list(self._links.items()):
            identity = guest.attendant.identity
            verdict = judge_again(identity, guest.now(loop_time), self.policy)
            if isinstance(verdict, Refusal) and verdict.fault.code != "certificate-expired":
                ended += 1
                self._cut(link, guest, verdict)
            elif (isinstance(verdict, Refusal) or verdict.is_renew_only) and guest.is_attending:
                ended += 1
                log.info("tunnel drained: its certificate is over", connector=str(identity), peer=link.describe())
                link.drain(EXPIRY_GRACE)
        return ended

    def retell_trust(self) -> None:
        """The roots have changed: say so in all tunnels."""
        if self.renewal is not None:
            self.renewal.retell()

    def hint(self, key: ConnectorKey, within: float) -> int:
        """Ask a connector to renew its certificate within so many seconds; 0 where no tunnel could carry the hint.

        One tunnel is enough: all of a connector's are told the same otherwise.
        """
        if self.renewal is None:
            return 0
        links = [link for link, guest in self._links.items() if guest.attendant.identity.key == key]
        return next((1 for link in links if self.renewal.hint(link, within)), 0)

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which connectors should spread when they all lost this relay (design: at least one second)."""
        return max(1.0, len(self.registry) / ATTACH_RATE)

    # --- House

    def judge(self, request: UpgradeRequest, source: str) -> Welcome | Refusal:
        """Admission: by the certificate, then by whether there is room. Who wants to join needs no certificate."""
        if self._suspended is not None:
            return Refusal(self._suspended)
        if request.subprotocol == ENROLL_SUBPROTOCOL:
            return self.enrolment.judge(source) if request.path == TUNNEL_PATH else Refusal(FAULTS["wrong-path"])
        verdict = admit(request.chain, request.path, self.clock.now(), self.policy)
        if isinstance(verdict, Refusal):
            return verdict
        if len(self._links) >= self.limits.tunnels:
            return Refusal(FAULTS["overloaded"])
        if self._held.get(verdict.key, 0) >= self.limits.tunnels_per_connector:
            return Refusal(FAULTS["overloaded"], f"{verdict} holds too many tunnels")
        return lambda transport: self._welcome(verdict, request.chain[0], transport)

    # --- within

    def _welcome(self, identity: Identity, certificate: bytes, transport: ServerTransport) -> MessageReceiver:
        """The WebSocket is open: say HELLO."""
        self.counts.accepted += 1
        attendant = Attendant(self.loop, self._attendance, identity, self._ended, self.renewal)
        link = Link(
            Role.RELAY, attendant, self._hello(identity), settings=self._settings, budget=self._budget,
            gaps=self._gaps, loop=self.loop,
        )  # fmt: skip
        self._links[link] = Guest(attendant, self.clock.now(), self.loop.time())
        self._held[identity.key] = self._held.get(identity.key, 0) + 1
        self._is_empty.clear()
        if self.renewal is not None:
            self.renewal.came(link, identity, certificate)
        link.start(transport)
        if self._leaves_at:
            self._ask(link)
        return link

    def _ask(self, link: Link) -> None:
        self._asked.add(link)
        link.ask_replacement(max(1.0, self._leaves_at - self.loop.time()))

    def _drain_replaced(self) -> None:
        """After `stay`: the connectors that have a new tunnel here need the one no more that was to be replaced."""
        new = {
            guest.attendant.identity.key
            for link, guest in self._links.items()
            if link not in self._asked and guest.is_attending
        }
        for link in list(self._asked):
            if self._links[link].attendant.identity.key in new:
                link.drain(REPLACED_GRACE)

    def _cut(self, link: Link, guest: Guest, refusal: Refusal) -> None:
        session = guest.attendant.session
        if session is not None:
            self.registry.detach(session)
        link.close(refusal.fault.code, refusal.detail)

    def _ended(self, link: Link) -> None:
        key = self._links.pop(link).attendant.identity.key
        self._asked.discard(link)
        if self.renewal is not None:
            self.renewal.left(link)
        if self._held[key] > 1:
            self._held[key] -= 1
        else:
            del self._held[key]
        if not self._links:
            self._is_empty.set()

    def _hello(self, identity: Identity) -> Hello:
        return Hello(
            software=self._software,
            instance=self._instance,
            session=secrets.token_hex(8),
            clock=int(self.loop.time() * 1e6),
            wall=self.clock.timestamp(),
            reconnect_spread=self.reconnect_spread,
            capabilities=CAPABILITIES if self.renewal is None else CAPABILITIES | {RENEWAL},
            renew_only=identity.is_renew_only,
            worker=self._worker,
            workers=self._workers,
        )

    def _recheck_on_timer(self) -> None:
        self._recheck_timer = self.loop.call_later(RECHECK_INTERVAL, self._recheck_on_timer)
        self.recheck()
        if self._asked and not self._leaves_at:
            self._drain_replaced()
