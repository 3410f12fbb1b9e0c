"""A listener for senders: a port, perhaps TLS, and the caps on connections.

Sockets come from an acceptor of ours, so that the caps are judged before TLS: a flood costs no handshakes.
What is over a cap is closed without a word, which every sender takes for a lost connection and tries again. When
connections run short, networks have equal shares of them, and idle ones make way: see guests.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, TypeAlias

from cloud_relay.certificates import read_peer
from cloud_relay.guests import FOR_EVER, Guests
from cloud_relay.handshake_turns import Knock
from cloud_relay.ingress.connection import SenderConnection
from cloud_relay.ports.acceptor import Acceptor
from cloud_relay.sources import source_key
from shared.tasks import spawn

if TYPE_CHECKING:
    from cloud_relay.ingress.context import Ingress
    from cloud_relay.metrics import ListenerMetrics
    from shared.tcp.head import Ends

HANDSHAKE_TIMEOUT: Final = 5.0
SHUTDOWN_TIMEOUT: Final = 3.0
"""Seconds; asyncio's own are 60 and 30."""

LAST_WORDS: Final = 1.0
"""Seconds for the last answers to reach their senders, once the time for pushes is over."""


class IngressListener:
    """One address. `tls` may be replaced at any time: it counts for connections from then on.

    Three endings: `stop_accepting`, then `close` with grace or `abort`.
    """

    def __init__(self, ingress: Ingress, metrics: ListenerMetrics, tls: ssl.SSLContext | None = None) -> None:
        self.ingress = ingress
        self.metrics = metrics
        self.tls = tls
        self._loop = ingress.loop
        self._acceptor: Acceptor | None = None
        self._arrivals: set[_Arrival] = set()
        self._connections: set[SenderConnection] = set()
        self._guests: Guests[_Guest] = Guests(self._turn_out)
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    async def listen(self, host: str | None, port: int) -> None:
        """Bind a port of its own; see `Acceptor.listen`. Without it, connections come by `take`."""
        self._acceptor = Acceptor(self._loop, lambda sock, ends: self.take(sock, ends, None))
        await self._acceptor.listen(host, port)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound itself: (host, port), the port never 0."""
        return self._acceptor.addresses if self._acceptor is not None else []

    @property
    def open_connections(self) -> int:
        """Connections that are open, those in their TLS handshake included."""
        return self.metrics.open

    def stop_accepting(self) -> None:
        """Close the port. Connections stay."""
        if self._acceptor is not None:
            self._acceptor.stop()

    async def close(self, grace: float) -> None:
        """Close the port and what is idle, let pushes finish for `grace` seconds, answer the rest 503, and abort.

        When cancelled, the port is closed and what is left stays open: `abort` ends it.
        """
        self.stop_accepting()
        for connection in list(self._connections):
            connection.close_if_idle()
        if not await self._empties_within(grace):
            for connection in list(self._connections):
                connection.give_up()
            await self._empties_within(LAST_WORDS)
        self.abort()

    async def _empties_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End everything at once; none of it counts any more, whenever the loop gets round to telling its end."""
        self.stop_accepting()
        for arrival in list(self._arrivals):
            arrival.abort()
            self.failed(arrival)
        for connection in list(self._connections):
            connection.abort()
            self.lost(connection)

    # ---------------------------------------------------------------- accepting

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        """A connection arrived. It is ours from now on; TLS reads the server name for itself."""
        settings, guests = self.ingress.context.settings, self._guests
        guests.resize(settings.max_connections, settings.max_connections_per_source)
        if not guests.let_in(ends.source, self.ingress.time()):
            self.metrics.refused += 1
            sock.close()
            return
        arrival = _Arrival(self, sock, ends.source)
        self._arrivals.add(arrival)
        guests.join(arrival)
        self.metrics.accepted += 1
        self.metrics.open += 1
        self._is_empty.clear()

    def _turn_out(self, guest: _Guest) -> None:
        """Somebody else gets its place."""
        self.metrics.refused += 1
        guest.make_way()
        if isinstance(guest, _Arrival):
            self.failed(guest)
        else:
            self.lost(guest)

    def _release(self, guest: _Guest) -> None:
        self._guests.leave(guest)
        self.metrics.open -= 1
        if not self._guests:
            self._is_empty.set()

    # ---------------------------------------------------------------- what arrivals and connections call

    def arrived(self, arrival: _Arrival, connection: SenderConnection) -> None:
        """A connection is ready for requests; from now on it counts for itself."""
        if arrival not in self._arrivals:  # given up meanwhile, and counted out
            connection.abort()
            return
        self._arrivals.discard(arrival)
        self._guests.leave(arrival)
        self._connections.add(connection)
        self._guests.join(connection)

    def failed(self, arrival: _Arrival) -> None:
        """A connection ended before it was ready."""
        if arrival in self._arrivals:
            self._arrivals.discard(arrival)
            self._release(arrival)

    def lost(self, connection: SenderConnection) -> None:
        """A connection that was ready ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._release(connection)


class _Arrival:
    """A connection from accept to its first request: TLS, where there is any, and then a protocol for it.

    With TLS it has no more than a socket and a timer until its ClientHello is here and its turn has come.
    """

    __slots__ = (
        "_deadline", "_has_started", "_is_aborted", "_knock", "_listener", "_since", "_sock", "_task", "_tls", "source",
    )  # fmt: skip

    def __init__(self, listener: IngressListener, sock: socket.socket, source: str) -> None:
        self.source = source
        self._listener = listener
        self._sock = sock
        self._tls = listener.tls
        self._since = listener.ingress.time()
        self._has_started = False
        self._is_aborted = False
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._knock: Knock | None = None
        if self._tls is None:
            self._begin()
        else:
            ingress = listener.ingress
            self._deadline = ingress.loop.call_later(HANDSHAKE_TIMEOUT, self._on_late)
            self._knock = Knock(ingress.loop, ingress.handshakes, sock, source_key(source), self._on_turn)

    @property
    def idle_since(self) -> float:
        """See `Guest`. From its first bytes on it is not idle: it waits for us, or is in its handshake."""
        return FOR_EVER if self._knock is None or self._knock.has_heard else self._since

    def make_way(self) -> None:
        """End at once: it is idle."""
        self._give_up()

    def abort(self) -> None:
        """End at once. A task that never began would leave its socket open, so it is let begin."""
        self._is_aborted = True
        if self._deadline is not None:
            self._give_up()
        elif self._has_started and self._task is not None:
            self._task.cancel()

    def _on_turn(self) -> None:
        """The first bytes of the handshake are here, or the sender has hung up."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._begin()

    def _on_late(self) -> None:
        """No ClientHello came in time, or there were too many before it."""
        self._give_up()
        self._listener.metrics.tls_failed += 1
        self._listener.failed(self)

    def _give_up(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._knock is not None:
            self._knock.give_up()
        self._sock.close()

    def _begin(self) -> None:
        self._task = spawn(self._welcome(), "ingress arrival")

    async def _welcome(self) -> None:
        self._has_started = True
        if self._is_aborted:
            self._sock.close()
            self._listener.failed(self)
            return
        listener, tls = self._listener, self._tls
        try:
            await listener.ingress.loop.connect_accepted_socket(
                self._new_connection,
                self._sock,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if tls else None,
            )
        except (OSError, ssl.SSLError):
            listener.metrics.tls_failed += 1
        finally:
            listener.failed(self)  # does nothing to one that is ready

    def _new_connection(self) -> SenderConnection:
        listener = self._listener
        return SenderConnection(
            listener.ingress,
            listener.metrics,
            listener.lost,
            on_made=self._on_made,
            source=self.source,
            scheme="https" if self._tls else "http",
        )

    def _on_made(self, connection: SenderConnection) -> None:
        if connection.scheme == "https":
            connection.peer = read_peer(connection.transport.get_extra_info("ssl_object"))
        self._listener.arrived(self, connection)


_Guest: TypeAlias = "_Arrival | SenderConnection"
