"""The link: drives one end of a tunnel's protocol over a transport, on the event loop.

No rule of the protocol is in here. What is: one flush a tick however many streams had something to say; nothing taken
from the core while the transport holds more than HIGH_WATER; one lazy timer for the core's deadline; and the watch for
gaps of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.errors import BY_WIRE, FAULTS
from shared.protocol import Connection, Hello, MemoryBudget, Role, Settings, StallCounts, State, Stream, StreamHandler
from shared.timers import LazyTimer, precise_clock
from shared.tunnel.gaps import GapWatch
from shared.tunnel.transport import HIGH_WATER, MessageTransport

CLOSE_CODE_BASE = 4000
"""A tunnel's close message carries 4000 plus the fault's number (RFC 6455 §7.4.2 leaves 4000–4999 to us)."""


class LinkHandler(Protocol):
    """What a link tells its owner."""

    def on_ready(self, link: Link, hello: Hello) -> None:
        """HELLOs are exchanged: pushes may flow."""

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """At the connector: a push; see `shared.protocol.ConnectionHandler`."""

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None:
        """At the relay: what the connector exposes from now on."""

    def on_renew(self, link: Link, request: bytes) -> None:
        """At the relay: a certificate request, in PEM; answer it by `link.answer_certificate`, now or later."""

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None:
        """At the connector: the answer to its RENEW, `certificate` (PEM chain) or `error` and `detail`: unverified."""

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None:
        """At the connector the relay's `roots` and `cross` (PEM), unverified; at the relay the connector's `pins`."""

    def on_hint(self, link: Link, within: float) -> None:
        """At the connector: the relay asks for a renewal within so many seconds."""

    def on_drain(self, link: Link, timeout: float) -> None:
        """The peer will close this tunnel within `timeout` seconds."""

    def on_replace(self, link: Link, timeout: float) -> None:
        """At the connector: the peer will drain this tunnel within `timeout` seconds, and wants a new one before."""

    def on_usable(self, link: Link) -> None:
        """At the relay: a suspect tunnel is heard again, and takes pushes."""

    def on_room(self, link: Link) -> bool:
        """At the relay: a tunnel that was full has a place for one push. Whether anybody waited for it."""

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        """The last call: the tunnel is over, by this fault of the catalogue. `detail` is for our own log."""

    def on_handler_error(self, link: Link, error: Exception) -> None:
        """A stream's handler raised; its stream was reset."""


class Link:
    """One end of a tunnel. Give it to a transport as its receiver, and the transport to `start`."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_flush_is_due",
        "_gaps",
        "_handler",
        "_is_closed",
        "_loop",
        "_time",
        "_timer",
        "_transport",
        "_why",
    )  # fmt: skip

    def __init__(
        self,
        role: Role,
        handler: LinkHandler,
        hello: Hello,
        *,
        settings: Settings,
        budget: MemoryBudget,
        gaps: GapWatch,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._handler = handler
        self._loop = loop
        self._time = precise_clock(loop)
        self._gaps = gaps
        self._transport: MessageTransport | None = None
        self._flush_is_due = False
        self._is_closed = False
        self._why: tuple[str, str] | None = None
        self._connection = Connection(role, self, hello, settings, budget, self._time())
        self._timer = LazyTimer(loop, self._on_timer)

    def __repr__(self) -> str:
        peer = self._transport.describe() if self._transport is not None else "nobody yet"
        return f"<Link to {peer} {self._connection!r}>"

    def start(self, transport: MessageTransport) -> None:
        """The transport is up: say HELLO."""
        self._transport = transport
        self._gaps.add(self._connection.note_gap)
        self._timer.set(self._connection.deadline)
        self.on_output()

    # ---------------------------------------------------------------- what owners ask

    @property
    def can_open(self) -> bool:
        """Whether a push may be put on this tunnel now."""
        return self._connection.can_open

    @property
    def accepts(self) -> bool:
        """Whether pushes may be put on this tunnel, if not now then as soon as it has a place."""
        return self._connection.accepts

    @property
    def is_gathering(self) -> bool:
        """Whether a message is to leave at the end of this turn of the loop anyway: one more push costs little."""
        return self._flush_is_due

    @property
    def is_open(self) -> bool:
        """Whether HELLOs are exchanged and the tunnel lives."""
        return self._connection.state is State.OPEN

    @property
    def is_suspect(self) -> bool:
        """At the relay: whether the connector is silent although pushes are in flight."""
        return self._connection.is_suspect

    @property
    def is_draining(self) -> bool:
        """Whether either side has announced the end."""
        return self._connection.is_draining or self._connection.peer_is_draining

    @property
    def in_flight(self) -> int:
        """Pushes on this tunnel."""
        return self._connection.in_flight

    @property
    def rtt(self) -> float:
        """Seconds that a PING and its PONG took, at best of late; infinite before the first."""
        return self._connection.clock.round_trip

    @property
    def last_ping(self) -> tuple[float, float]:
        """How long the ping took that was answered last, in seconds, and when its answer came, by the loop's time."""
        clock = self._connection.clock
        return clock.last_round_trip, clock.sampled_at

    def count_stalls(self, counts: StallCounts) -> None:
        """Count waits for credit there from now on."""
        self._connection.outbox.stalls.counts = counts

    @property
    def last_received(self) -> float:
        """The loop's time at which the last byte came."""
        return self._connection.liveness.last_received

    @property
    def peer(self) -> Hello | None:
        """The peer's HELLO, once it came."""
        return self._connection.peer

    @property
    def hello(self) -> Hello:
        """Our own HELLO."""
        return self._connection.hello

    def describe(self) -> str:
        """The peer's address, for our own log."""
        return self._transport.describe() if self._transport is not None else ""

    def open_stream(
        self, handler: StreamHandler, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> Stream:
        """At the relay: put a push on this tunnel. `deadline` in the loop's time, 0.0 for none.

        Raises LocalFault (tunnel-refused) when `can_open` is false.
        """
        connection = self._connection
        stream = connection.open_stream(head, body, end, deadline, self._time())
        stream.handler = handler
        timer = self._timer
        if connection.deadline < timer.deadline:
            timer.set(connection.deadline)
        return stream

    def update_targets(self, targets: Mapping[str, str]) -> None:
        """At the connector: tell the relay what is exposed from now on."""
        self._connection.update_targets(targets)

    # The renewal: each says whether it was sent, which it is not to a peer that does not know the frame.

    @property
    def is_renewal_offered(self) -> bool:
        """Whether both sides know the renewal's frames, and the tunnel is open."""
        return self._connection.renewal.is_offered

    def request_certificate(self, request: bytes) -> bool:
        """At the connector: ask for a certificate with this request (PEM); one at a time."""
        return self._connection.renewal.request_certificate(request)

    def answer_certificate(self, answer: Mapping[str, str]) -> bool:
        """At the relay: `certificate` (PEM chain), or `error` and `detail`. ValueError if it fits no frame."""
        return self._connection.renewal.answer_certificate(answer)

    def send_trust(self, message: Mapping[str, Sequence[str]]) -> bool:
        """From the relay `roots` and `cross` (PEM), from the connector `pins`. ValueError if it fits no frame."""
        return self._connection.renewal.send_trust(message)

    def send_hint(self, within: float) -> bool:
        """At the relay: ask for a renewal within so many seconds."""
        return self._connection.renewal.send_hint(within)

    def ping(self) -> None:
        """Ask for a sign of life; `last_received` tells."""
        self._connection.ping(self._time())

    def ask_replacement(self, timeout: float) -> None:
        """At the relay: have the connector open a new tunnel in this one's place. This one serves on; `drain` it within
        `timeout` seconds."""
        self._connection.ask_replacement(timeout)

    # Three endings: drain (finish), close (with a goodbye), abort (at once).

    def drain(self, timeout: float) -> None:
        """Take nothing new, finish what is open within `timeout` seconds, then close."""
        self._connection.drain(timeout, self._time())
        self._timer.set(self._connection.deadline)

    def close(self, code: str = "going-away", detail: str = "") -> None:
        """End all streams and close, telling the peer the code."""
        self._end(code, detail)

    def abort(self) -> None:
        """End all streams and drop the connection."""
        self._why = self._why or ("going-away", "aborted")
        if self._transport is not None:
            self._transport.abort()
        self._connection.lost(self._time())

    # ---------------------------------------------------------------- MessageReceiver

    def bytes_received(self) -> None:
        now = self._time()
        self._gaps.look(now)
        self._connection.note_alive(now)

    def message_received(self, message: bytes) -> None:
        connection = self._connection
        connection.receive_message(message, self._time())
        timer = self._timer
        if connection.deadline < timer.deadline:
            timer.set(connection.deadline)

    def transport_writable(self) -> None:
        self._flush()

    def transport_closing(self, code: int | None, reason: str) -> None:
        self._why = self._why or _peers_reason(code, reason)
        self._connection.lost(self._time())

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.close()
        self._gaps.remove(self._connection.note_gap)
        self._connection.lost(self._time())
        why = self._why or _peers_reason(code, reason) or ("connection-lost", str(error) if error else "")
        self._handler.on_closed(self, *why)

    # ---------------------------------------------------------------- ConnectionHandler

    def on_usable(self) -> None:
        self._handler.on_usable(self)

    def on_room(self) -> bool:
        return self._handler.on_room(self)

    def on_output(self) -> None:
        if not self._flush_is_due and self._transport is not None:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def on_ready(self, hello: Hello) -> None:
        self._timer.set(self._connection.deadline)
        self._handler.on_ready(self, hello)

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        self._handler.on_stream(stream, head, body, end)

    def on_targets(self, targets: Mapping[str, str]) -> None:
        self._handler.on_targets(self, targets)

    def on_renew(self, request: bytes) -> None:
        self._handler.on_renew(self, request)

    def on_certificate(self, answer: Mapping[str, str]) -> None:
        self._handler.on_certificate(self, answer)

    def on_trust(self, message: Mapping[str, Sequence[str]]) -> None:
        self._handler.on_trust(self, message)

    def on_hint(self, within: float) -> None:
        self._handler.on_hint(self, within)

    def on_drain(self, timeout: float) -> None:
        self._handler.on_drain(self, timeout)

    def on_replace(self, timeout: float) -> None:
        self._handler.on_replace(self, timeout)

    def on_drained(self) -> None:
        # Not now: the core is in the middle of a message, perhaps the one with the last answers.
        self._loop.call_soon(self._end, "going-away", "drained")

    def on_failed(self, code: str, detail: str) -> None:
        self._end(code, detail)

    def on_error(self, error: Exception) -> None:
        self._handler.on_handler_error(self, error)

    # ---------------------------------------------------------------- within

    def _flush(self) -> None:
        self._flush_is_due = False
        transport = self._transport
        if transport is None:
            return
        connection = self._connection
        now = self._time()
        if connection.budget.is_spent:
            connection.relieve()
        while transport.buffered() <= HIGH_WATER:
            message = connection.next_message(now)
            if message is None:
                return
            transport.send(message)
            if not connection.has_output:
                return

    def _on_timer(self) -> None:
        now = self._time()
        self._gaps.look(now)
        self._connection.handle_deadline(now)
        if self._connection.state is not State.CLOSED:
            self._timer.set(self._connection.deadline)

    def _end(self, code: str, detail: str) -> None:
        self._why = self._why or (code, detail)
        self._connection.lost(self._time())
        if self._transport is not None:
            if code == "silent":  # nobody would read a goodbye
                self._transport.abort()
            else:
                self._transport.close(CLOSE_CODE_BASE + FAULTS[code].wire, code)


def _peers_reason(code: int | None, reason: str) -> tuple[str, str] | None:
    """The fault that the peer named in its close message; None where there was none or it means nothing here."""
    if code is None:
        return None
    fault = BY_WIRE.get(code - CLOSE_CODE_BASE)
    if fault is None:
        return ("connection-lost", f"closed with {code} {reason[:120]!r}")
    return (fault.code, f"the other side says: {fault.title}")
