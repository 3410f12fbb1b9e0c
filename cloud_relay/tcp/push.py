"""One TCP connection of a sender: from an accepted socket to a stream, then a splice of both.

Theory of operation.

    WELCOMING ──▶ HOLDING ──▶ OPEN ──▶ FLOWING ──▶ over
     TLS, who     no          the target  both ways
     is it        connector   is dialled

Up to FLOWING what the sender sends is kept, so that another connector can have the connection when the first one could
not connect: until the target has taken the connection, nothing of it went there. From then on a fault resets both
sides. What was counted is given back in `settle`, and nowhere else.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Final

from cloud_relay.certificates import UNKNOWN, PeerCertificate, read_chain
from cloud_relay.ingress.retry import AGAIN, HELD, can_mend, fault_of, is_gone, may_wait
from cloud_relay.senders import Sender
from cloud_relay.sources import source_key
from cloud_relay.tcp.access import log_connection, log_try
from cloud_relay.tcp.context import EARLY_BYTES, HANDSHAKE_TIMEOUT, MAX_TRIES
from cloud_relay.tcp.welcome import Welcome
from shared.errors import FAULTS, Fault, LocalFault
from shared.tcp.head import ConnectionHead, encode_connection, is_answer
from shared.tcp.splice import Splice
from shared.tcp.tls import TlsEdge

if TYPE_CHECKING:
    import socket

    from cloud_relay.ingress.context import TunnelSession, Waiter
    from cloud_relay.tcp.context import TcpContext
    from cloud_relay.tcp.routes import TcpRoute
    from shared.tcp.edge import Edge
    from shared.tcp.head import Ends

_TLS_FAILED: Final = FAULTS["sender-tls-failed"]
_GONE: Final = FAULTS["sender-gone"]
_NO_CONNECTOR: Final = FAULTS["no-connector"]
_DEADLINE: Final = FAULTS["deadline-exceeded"]
_CONNECTOR_ERROR: Final = FAULTS["connector-error"]
_NO_ROUTE: Final = FAULTS["no-such-route"]
_NOT_ALLOWED: Final = FAULTS["sender-not-allowed"]
_NETWORK: Final = FAULTS["sender-network-refused"]


class TcpPush(Splice):
    """A sender's connection. For the access line: loop's times `began` and `connected_at` (0.0: never), `waited`.

    `peer` is the client certificate that TLS has verified, where the route asks for one.
    """

    __slots__ = (
        "_context", "_early", "_early_size", "_held_since", "_is_admitted", "_ready_at", "_tried", "_until",
        "_waiter", "_welcome", "attempt", "began", "connected_at", "ends", "peer", "request_id",
        "route", "sender", "server_name", "session", "waited",
    )  # fmt: skip

    IDLE = FAULTS["idle-timeout"]
    EDGE_LOST = FAULTS["sender-reset"]

    def __init__(
        self,
        context: TcpContext,
        route: TcpRoute,
        sock: socket.socket,
        ends: Ends,
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> None:
        super().__init__(context.loop, context.time, route.idle)
        self.route = route
        self.ends = ends
        self.server_name = server_name
        self.request_id = context.ingress.new_request_id()
        self.began = self._progress
        self.connected_at = self.waited = 0.0
        self.sender: Sender | None = None
        self.peer: PeerCertificate | None = None
        self.session: TunnelSession | None = None
        self.attempt = 0
        self._context = context
        self._welcome = Welcome(context, self, sock, tls)
        self._early: list[bytes] | None = []
        self._early_size = 0
        self._ready_at = self._until = self._held_since = 0.0
        self._waiter: Waiter | None = None
        self._tried: tuple[TunnelSession, ...] = ()
        self._is_admitted = False
        context.enter(self)
        route.state.enter(source_key(ends.source))
        route.metrics.connections += 1
        route.metrics.live.add(self)
        self._timer.set(self.began + HANDSHAKE_TIMEOUT)

    def arrive(self) -> None:
        """Begin: at once, or with TLS when its ClientHello is here and its turn has come."""
        self._welcome.begin()

    def end_gone(self) -> None:
        """The sender went before there was an edge."""
        self.fail(_GONE)

    def end(self, fault: Fault) -> None:
        """See Certified."""
        self.fail(fault)

    def recheck(self, route: TcpRoute | None) -> None:
        """A reload: `route` is what became of ours, None: it is gone."""
        if route is None or route.key != self.route.key:
            self.fail(_NO_ROUTE)
        elif not route.lets_in(self.ends.source):
            self.fail(_NETWORK)
        elif self.sender is None:
            self.route = route  # nothing is counted yet: from here on the new one's rules are what it is judged by
        else:
            verdict = route.judge(self.peer, self._context.ingress.certified.now())
            if isinstance(verdict, Fault):
                self.fail(verdict)
            elif verdict.name != self.sender.name:
                self.fail(_NOT_ALLOWED)

    # What the edge calls.

    def on_made(self, edge: Edge) -> None:
        """See EdgeHandler."""
        self.edge = edge
        if self.is_over:
            edge.reset()
            return
        # A reload may have come since: then the edge is of the old route's kind, and the new one may want more of it.
        chain = edge.peer_chain() if isinstance(edge, TlsEdge) and self.route.certificates is not None else ()
        self.peer = read_chain(chain) if chain else None
        now = self._context.ingress.certified.now()
        verdict = UNKNOWN if chain and self.peer is None else self.route.judge(self.peer, now)
        if isinstance(verdict, Fault):
            self.fail(verdict)
        else:
            self._context.ingress.certified.add(self)
            self._admit(verdict)

    def on_bytes(self, data: bytes) -> None:
        """See EdgeHandler."""
        if self._early is not None:
            self._early.append(data)
            self._early_size += len(data)
            self._context.ingress.context.budget.used += len(data)
            if self._early_size >= EARLY_BYTES and self.edge is not None:
                self.edge.pause_reading()
        super().on_bytes(data)

    def on_lost(self, error: Exception | None) -> None:
        """See EdgeHandler."""
        if self.sender is None and not self.is_over:  # it never was ready
            self.edge = None
            self.fail(_TLS_FAILED if self._welcome.tls is not None else _GONE)
        else:
            super().on_lost(error)

    # What the stream calls.

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """See StreamHandler: the target has taken the connection."""
        if interim:
            return
        if not is_answer(head):
            self.fail(_CONNECTOR_ERROR)
            return
        self.connected_at = self._time()
        health = self._context.ingress.context.health
        if health.doubts and self.session is not None:
            health.delivered(self.route.key, self.session.identity.connector, self.connected_at)
        self._forget_early()
        self.watch()
        stream, edge = self._stream, self.edge
        if stream is not None and edge is not None and stream.is_writable:
            edge.resume_reading()
        if body or end:
            self.on_data(body, end)

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler."""
        stream = self._stream
        if self._early is None or stream is None or self.is_over:
            super().on_reset(wire_code, refused)
            return
        self._stream = None
        fault = fault_of(wire_code, refused)
        if refused or not stream.was_sent:
            self._try_again(fault)
            return
        if self.session is not None:
            health = self._context.ingress.context.health
            health.failed(self.route.key, self.session.identity.connector, fault.code, self._time())
        self.route.metrics.try_failed(fault.code, "ambiguous")
        self.fail(fault)

    def on_writable(self) -> None:
        """See StreamHandler."""
        if self._early is None or self._early_size < EARLY_BYTES:
            super().on_writable()

    # On the way to the tunnel.

    def _admit(self, sender: Sender) -> None:
        self.sender = sender
        now = self._time()
        limits = self._context.ingress.context.limits
        fault = limits.admit(sender, self.route, None, now)
        if fault is not None:
            self.fail(fault)
            return
        limits.stays(sender)
        self._is_admitted = True
        self._context.ingress.retries.earn()
        self._ready_at = now  # a slow handshake takes nothing of the time that a connector has to come back
        self._until = now + self.route.timeout
        self._choose_and_open(now)

    def _choose_and_open(self, now: float) -> None:
        session = self._choose()
        if session is None:
            self._hold(now)
        else:
            self._open(session, now)

    def _choose(self) -> TunnelSession | None:
        """A connector that was not tried yet; a tunnel that was lost may come back."""
        choose, tried = self._context.ingress.context.registry.choose, self._tried
        if not tried:
            return choose(*self.route.key)
        return choose(*self.route.key, tried, other_connector=True)

    def _hold(self, now: float) -> None:
        """There is no connector: wait for one, for a moment."""
        until = min(self._ready_at + self.route.hold, self._until)
        if now >= until:
            self.fail(_NO_CONNECTOR)
            return
        self._held_since = now
        self._timer.set(until)
        self._waiter = self._context.ingress.context.registry.wait(self.route.key, self._on_session)

    def _on_session(self) -> None:
        """A connector showed up, or is usable again."""
        self._waiter = None
        if not self.is_over and self._stream is None:
            now = self._time()
            self.waited += now - self._held_since
            self._tried = ()
            self._choose_and_open(now)

    def _open(self, session: TunnelSession, now: float) -> None:
        self.session = session
        self.attempt += 1
        route, sender = self.route, self.sender
        head = encode_connection(
            ConnectionHead(
                route.target, self.request_id, self.attempt, "" if sender is None else sender.name, route.name,
                self.ends if route.tells_ends else None,
            )
        )  # fmt: skip
        self._timer.set(self._until)
        try:
            self._stream = session.link.open_stream(
                self, head, b"".join(self._early or ()), self.has_edge_ended, self._until
            )
        except LocalFault as error:  # it closed since it was chosen
            self._try_again(error.fault)

    def _try_again(self, fault: Fault) -> None:
        """A try ended before the target took the connection."""
        now, session, spent = self._time(), self.session, self.attempt
        if session is not None:
            context = self._context.ingress.context
            context.health.failed(self.route.key, session.identity.connector, fault.code, now)
            if fault is _NO_CONNECTOR and context.registry.doubt(self.route.key, session):
                spent -= 1  # nobody was asked
            else:
                self._tried += (session,)
        then, other = self._what_then(fault, now, spent)
        self.route.metrics.try_failed(fault.code, then)
        if then == AGAIN and other is not None:
            log_try(self, self._context, fault, then)
            self.route.metrics.retries += 1
            self.attempt = spent
            self._open(other, now)
        elif then == HELD:
            log_try(self, self._context, fault, then)
            self.attempt = spent
            self._hold(now)
        else:
            self.fail(fault)

    def _what_then(self, fault: Fault, now: float, spent: int) -> tuple[str, TunnelSession | None]:
        """After a try that failed, `spent` in all: AGAIN and where, HELD, or why it ends here; see ingress.retry."""
        if not can_mend(fault):
            return "final", None
        if spent >= MAX_TRIES:
            return "tries-spent", None
        if now >= self._until:
            return "time-spent", None
        other = self._choose()
        if other is None:
            return (HELD, None) if may_wait(fault) else ("no-other", None)
        is_free = is_gone(self.session)
        return (AGAIN, other) if is_free or self._context.ingress.retries.take(now) else ("budget-spent", None)

    # Within.

    def fault_of(self, wire_code: int, refused: bool) -> Fault:
        """See Splice."""
        return fault_of(wire_code, refused)

    def _on_timer(self) -> None:
        if self._early is None:
            super()._on_timer()
        elif self.sender is None:
            self.fail(_TLS_FAILED)
        elif self._stream is None:
            self.waited += self._time() - self._held_since
            self.fail(_NO_CONNECTOR)
        else:
            self.fail(_DEADLINE)

    def _forget_early(self) -> None:
        self._context.ingress.context.budget.used -= self._early_size
        self._early = None
        self._early_size = 0

    def settle(self) -> None:
        """See Splice."""
        context, route, sender = self._context, self.route, self.sender
        now = self._time()
        self._forget_early()
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        if self.edge is None:
            self._welcome.give_up()
        else:
            self._welcome.let_go()
        if self._is_admitted and sender is not None:
            limits = context.ingress.context.limits
            limits.passes(sender)
            limits.release(sender, route)
        context.leave(self)
        route.state.leave(source_key(self.ends.source))
        metrics = route.metrics
        metrics.live.discard(self)
        metrics.ended_in += self.received
        metrics.ended_out += self.sent
        metrics.ended(self.fault, now - self.began)
        if sender is not None and sender is not route.anonymous:
            sender.metrics.pushes += 1
        if self.fault is None:
            metrics.last_delivered = time.time()
            if sender is not None:
                sender.metrics.delivered += 1
                sender.metrics.last_delivered = metrics.last_delivered
        log_connection(self, context, now)
