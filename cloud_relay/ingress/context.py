"""What a push takes from outside, in one snapshot, so that a reload is atomic per push."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from cloud_relay.certificate_watch import CertificateWatch
from cloud_relay.fair_queue import FairQueue
from cloud_relay.handshake_turns import HandshakeTurns
from cloud_relay.health import RelayState
from cloud_relay.ingress.retry import RetryBudget
from cloud_relay.loop_turns import LoopTurns
from shared.errors import Fault
from shared.logs import LogLimiter
from shared.timers import precise_clock

if TYPE_CHECKING:
    from cloud_relay.ingress.upgraded import UpgradedPush
    from cloud_relay.limits import Limits
    from cloud_relay.routing import Route, RouteKey, RoutingTable
    from cloud_relay.senders import Caller, Sender
    from shared.http.requests import RequestHead
    from shared.protocol import MemoryBudget, StreamEnd, StreamHandler


class TunnelLink(Protocol):
    """What a push needs of a session's link."""

    @property
    def is_open(self) -> bool: ...
    @property
    def is_draining(self) -> bool: ...
    def open_stream(
        self, handler: StreamHandler, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> StreamEnd: ...


class TunnelIdentity(Protocol):
    @property
    def connector(self) -> str: ...


class TunnelSession(Protocol):
    """What a push needs of a session."""

    @property
    def identity(self) -> TunnelIdentity: ...
    @property
    def link(self) -> TunnelLink: ...


class Waiter(Protocol):
    def cancel(self) -> None: ...


class SessionRegistry(Protocol):
    """Where sessions are found. A waiter's callback comes once, when a session for its key shows up.

    `doubt` is told of a session that had no connector for its key after all, and says whether what is known of it may
    just be old: then the push has not been tried by anybody.
    """

    def choose(
        self, tenant: str, location: str, target: str, exclude: tuple[Any, ...] = (), *, other_connector: bool = False
    ) -> TunnelSession | None: ...
    def wait(self, key: RouteKey, callback: Callable[[], None]) -> Waiter: ...
    def doubt(self, key: RouteKey, session: Any) -> bool: ...


class PushWitness(Protocol):
    """Who is told what pushes find out about targets. `doubts` is empty while a delivery need not be told."""

    @property
    def doubts(self) -> Mapping[Any, Any]: ...
    def failed(self, key: RouteKey, connector: str, code: str, now: float) -> None: ...
    def delivered(self, key: RouteKey, connector: str, now: float) -> None: ...


class NoWitness:
    """Where nobody wants to know."""

    doubts: Mapping[Any, Any] = MappingProxyType({})

    def failed(self, key: RouteKey, connector: str, code: str, now: float) -> None:
        """Unheard."""

    def delivered(self, key: RouteKey, connector: str, now: float) -> None:
        """Unheard."""


class SenderAuthenticator(Protocol):
    """Who sends this? A future where the answer takes a hash that must not block the loop."""

    def authenticate(
        self, route: Route, head: RequestHead, caller: Caller
    ) -> Sender | Fault | asyncio.Future[Sender | Fault]: ...


class AccessLog(Protocol):
    """Where access lines go."""

    def line(self, record: Mapping[str, Any]) -> None: ...
    def text(self, line: bytes) -> None: ...


REFUSED_AT_ONCE: Final = 4
"""Connections that are read again in one turn of the loop after their last request was refused."""

STRANGERS_LINES: Final = 50
"""Access lines that one source may cause at once without ever being known for a sender; then one a second."""


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """Limits of a sender's connection. Seconds and bytes."""

    head_timeout: float = 5.0
    """From a head's first byte to its last. A sender that needs longer is cut off without an answer."""
    first_byte_timeout: float = 10.0
    """How long a new connection may be silent. Load balancers that connect ahead of need use them within seconds."""
    keep_alive_timeout: float = 75.0
    """How long a connection may wait for its next request: longer than load balancers do (60 s), so that they close."""
    slow_body_rate: int = 1024
    """Bytes a second that a body must bring, on average over each window that was not paused by us."""
    slow_body_window: float = 10.0
    idle_timeout: float = 60.0
    """Once the answer has begun: how long neither side may move a byte. Stalled senders count."""
    linger_time: float = 5.0
    """After an early answer: how long input is thrown away, so that the sender reads the answer before the end."""
    linger_bytes: int = 16 * 1024 * 1024
    pipeline_buffer: int = 64 * 1024
    """Bytes of later requests that are taken in while one is being answered; then reading stops."""
    replay_buffer: int = 64 * 1024
    """The longest body that can be sent a second time, and what is taken in of one that waits for a connector."""
    skip_body: int = 256 * 1024
    """The longest rest of a refused body that is read and thrown away to keep the connection."""
    max_connections: int = 16384
    max_connections_per_source: int = 4096
    """One source may be a whole cloud region behind one address."""
    max_tries: int = 3
    queue: int = 8192
    """Pushes over a quota that may wait for their turn."""
    queue_wait: float = 3.0
    """How long one of them may wait. Together with all else below the 5 s at which some senders give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressContext:
    """Everything that one push uses: fetched once, at its head."""

    routing: RoutingTable
    authenticator: SenderAuthenticator
    limits: Limits
    registry: SessionRegistry
    budget: MemoryBudget
    access_log: AccessLog
    health: PushWitness = field(default_factory=NoWitness)
    settings: IngressSettings = field(default_factory=IngressSettings)


class Ingress:
    """The one mutable object that all listeners and connections of a process share.

    `context` is replaced by a reload (`use`). `state` moves on with the process: before SERVING, and from STOPPED on,
    every push gets 503 `starting`, or `cannot-judge-credential` if it is BLIND; while DRAINING pushes are served and
    each answer closes its connection. `on_bug` is
    told of every exception that our own code raised while it worked on a push: it logs with a traceback, rarely enough.
    `upgraded` are the pushes that live on as WebSockets, `certified` what ends with a client certificate. `handshakes`
    says when those of new connections begin, `refusals` when it is looked what a connection says next whose last push
    was refused: refusals are cheap to ask for, and hundreds of them in one turn would keep all others waiting.
    `strangers` says, by source, which access lines are written of pushes that no sender is known for.
    """

    __slots__ = (
        "_number", "_prefix", "certified", "context", "handshakes", "loop", "on_bug", "queue", "refusals", "retries",
        "state", "strangers", "time", "upgraded",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: IngressContext,
        on_bug: Callable[[BaseException, str], None],
        state: RelayState = RelayState.SERVING,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` is the time by which certificates are judged, Unix seconds."""
        self.loop = loop
        self.time = precise_clock(loop)
        self.context = context
        self.on_bug = on_bug
        self.state = state
        self.retries = RetryBudget()
        self.queue = FairQueue(loop, context.limits, self.time)
        self.handshakes = HandshakeTurns(loop)
        self.refusals = LoopTurns(loop, REFUSED_AT_ONCE)
        self.upgraded: set[UpgradedPush] = set()
        self.certified = CertificateWatch(loop, wall)
        self.strangers = LogLimiter(1.0, STRANGERS_LINES, max_keys=4096, clock=self.time)
        self._prefix = secrets.token_hex(6)
        self._number = itertools.count(1)

    def use(self, context: IngressContext) -> None:
        """Serve pushes by this from now on, and end the upgraded ones that could not begin by it."""
        self.context = context
        self.queue.recheck()
        for push in list(self.upgraded):
            push.recheck(context.routing)

    def new_request_id(self) -> str:
        """Unique without coordination: 48 random bits for this process, and a counter. Nothing is a sender's choice."""
        return f"{self._prefix}-{next(self._number):08x}"

    def retry_after(self) -> int:
        """Seconds for `Retry-After`: few, for we recover in about one, and spread, so that not all come at once."""
        return random.randrange(1, 6)
