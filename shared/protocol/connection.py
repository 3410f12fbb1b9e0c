"""One end of a tunnel. Feed it messages and the time; take messages from it when the transport has room.

The driver's duties:

    receive_message(message, now)   for each message that arrives; note_alive(now) for bytes that make no message yet
    next_message(now)               while the transport has room and something comes; again after each `on_output`
    handle_deadline(now)            when `deadline` has come; the attribute may move, earlier only within another call
    note_gap(now)                   when the event loop was away for more than a second, before anything else is fed
    lost(now)                       when the transport is gone

Nothing here raises on what a peer sends: the connection fails with a code of the catalogue, and `on_failed` tells the
driver to close.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.errors import LocalFault
from shared.protocol import frames
from shared.protocol.budget import MemoryBudget
from shared.protocol.credit import ReceiveWindow
from shared.protocol.driver import ConnectionHandler, Role, State
from shared.protocol.ending import EndingConnection
from shared.protocol.frames import ANSWER, HEADER, HEADER_SIZE, INTERIM, MAX_MESSAGE, TARGETS
from shared.protocol.hello import Hello, serialize_targets
from shared.protocol.inbound import receive_frame
from shared.protocol.quarantine import Quarantine
from shared.protocol.renewal import Renewal
from shared.protocol.settings import Settings
from shared.protocol.stream import Event, Stream

TUNNEL_CREDIT_STEP: Final = 32 * 1024
"""The tunnel's credit goes back by so many bytes: half a message, a frame of 12 bytes in a while."""


class Connection(EndingConnection):
    """One end of a tunnel."""

    def __init__(
        self, role: Role, handler: ConnectionHandler, hello: Hello, settings: Settings, budget: MemoryBudget, now: float
    ) -> None:
        super().__init__(role, handler, hello, settings, budget, now)
        self.renewal = Renewal(self)

    # ---------------------------------------------------------------- what the application asks

    @property
    def is_closed(self) -> bool:
        """Whether this tunnel is over."""
        return self.state is State.CLOSED

    @property
    def in_flight(self) -> int:
        """Streams that are open, or wait to be."""
        return self.table.in_flight

    @property
    def round_trip(self) -> float:
        """The shortest time in which anything came back of late, seconds; infinite before the first measurement.

        Good enough to size windows by. What took long may have been collected at the other end: credit goes back by
        TUNNEL_CREDIT_STEP, which is many pushes on a tunnel with little traffic. `clock.round_trip` is what the path
        takes.
        """
        return min(self.clock.round_trip, self.window.round_trip)

    @property
    def can_open(self) -> bool:
        """Whether a push may be put on this tunnel now."""
        table = self.table
        return self.accepts and len(table.open) + len(table.waiting) < self.max_streams

    def open_stream(self, stream_head: bytes, body: bytes, end: bool, deadline: float, now: float) -> Stream:
        """At the relay: put a push on this tunnel; set the stream's handler before anything else is fed.

        `deadline` is in seconds of our clock, 0 for none. Raises LocalFault (tunnel-refused) when `can_open` is false.
        """
        peer, table = self.peer, self.table
        in_flight = len(table.open) + len(table.waiting) + 1
        if peer is None or not self.accepts or in_flight > self.max_streams:
            raise LocalFault("tunnel-refused", f"{self!r} takes no push")
        if len(stream_head) > frames.MAX_HEAD:
            raise LocalFault("tunnel-refused", f"a head of {len(stream_head)} bytes")
        self.now = now
        if not self.liveness.is_busy:
            self.become_busy(now)
        stream = Stream(self, peer.stream_credit, is_opener=True, now=now)
        stream.deadline = deadline
        table.waiting.add(stream)
        if in_flight == self.max_streams:
            self.is_crowded = True
        stream.open(stream_head, body, end)
        return stream

    def update_targets(self, targets: Mapping[str, str]) -> None:
        """At the connector: tell the relay what is exposed from now on."""
        if self.state is not State.CLOSED:
            self.control(frames.tunnel_frame(TARGETS, serialize_targets(targets)))

    def ping(self, now: float) -> None:
        """Ask for a sign of life; `liveness.last_received` tells whether one came."""
        if self.state is not State.CLOSED:
            self.liveness.last_ping = now
            self.control(frames.ping(int(now * 1e6)))

    def ask_replacement(self, timeout: float) -> None:
        """At the relay: have the connector open a new tunnel. This one serves on; `drain` it within `timeout`."""
        if self.is_relay and self.state is not State.CLOSED and not self.is_draining:
            self.control(frames.drain(timeout, replace=True))

    # ---------------------------------------------------------------- what the driver feeds

    def note_alive(self, now: float) -> None:
        """Some bytes came."""
        self.liveness.last_received = self.liveness.partial_at = now

    def note_gap(self, now: float) -> None:
        """We were away for a while: what now comes may be old. At the connector nothing goes to a target before a
        fresh PONG."""
        self.liveness.forgive(now)
        self.now = now
        if self.is_relay:
            return
        self.clock.forget()  # it may have stood still meanwhile: the next sample counts, whatever it took
        if self.state is State.GREETING:
            self.fail("silent", "away while greeting: the relay's HELLO may be old")
        elif self.state is State.OPEN:
            until = int(now * 1e6)
            if self.quarantine is None:
                self.quarantine = Quarantine(until)
            self.quarantine.until = until
            self.ping(now)

    def receive_message(self, message: bytes, now: float) -> None:
        """Take in one message: calls the handlers of everything in it."""
        if self.is_closed:
            return
        self.now = now
        position, size = 0, len(message)
        liveness = self.liveness
        liveness.last_received = now
        liveness.partial_at = 0.0
        if size != frames.PING_SIZE or message[0] != frames.PING:
            liveness.last_proof = now
            if self.is_suspect:
                self._trust()
        if size > MAX_MESSAGE:
            self.fail("protocol-error", f"a message of {size} bytes")
            return
        unpack = HEADER.unpack_from
        while position < size:
            if size - position < HEADER_SIZE:
                self.fail("protocol-error", "truncated frame header")
                return
            kind, flags, length, stream_id = unpack(message, position)
            position += HEADER_SIZE
            end = position + length
            if end > size:
                self.fail("protocol-error", "truncated frame payload")
                return
            receive_frame(self, kind, flags, stream_id, message[position:end])
            if self.state is State.CLOSED:
                return
            position = end
        if self.uncredited >= TUNNEL_CREDIT_STEP and self.quarantine is None:
            self.control(frames.credit(0, self.uncredited))
            self.uncredited = 0
        if self.budget.is_spent:
            self.relieve()

    @property
    def has_output(self) -> bool:
        """Whether `next_message` may have something."""
        return self.outbox.has_output

    def next_message(self, now: float) -> bytes | None:
        """The next message to hand to the transport, chosen now; None when there is nothing, or no credit."""
        self.now = now
        self._is_announced = False
        self.outbox.stalls.now = now
        message = self.outbox.next_message()
        if message is not None:
            self.liveness.last_sent = now
        if self._writable:
            writable, self._writable = self._writable, []
            for stream in writable:
                if not stream.is_finished or stream.wants_sent:
                    stream.wants_sent = False
                    self._guard(stream, stream.handler.on_writable)
        if self.is_draining:
            self.check_drained()
        return message

    def handle_deadline(self, now: float) -> None:
        """The time in `deadline` has come: look at everything that waits, and set the next."""
        if self.state is State.CLOSED:
            return
        self.now = now
        liveness = self.liveness
        if self.state is State.GREETING and now >= self._hello_by:
            self.fail("silent", "no HELLO in time")
        elif liveness.is_dead(now):
            self.fail("silent", f"silent for {liveness.silence(now):.1f} s")
        elif self.outbox.is_starved and now - self.window.credited_at >= self.settings.dead_after_idle:
            self.fail("silent", "it gives no credit back")
        elif now >= self._drain_by:
            self._drain_by = float("inf")
            self.handler.on_drained()
        else:
            self.is_suspect = self.is_relay and liveness.is_suspect(now)
            self.judge()
            if self.state is State.OPEN and liveness.wants_ping(now):
                self.ping(now)
        self.schedule(now)

    # ---------------------------------------------------------------- what streams call

    def on_queued(self, stream: Stream, n: int) -> None:
        """A stream has something to send."""
        self.budget.used += n
        self.outbox.add(stream)
        if not self._is_announced:
            self.announce()

    def on_consumed(self, stream: Stream, n: int) -> None:
        """A stream's reader is done with bytes."""
        self.budget.used -= n
        stream.progress_at = self.now
        if stream.is_receiving:
            window = stream.receive_window
            if (
                window is not None
                and (credit := window.on_consumed(n, self.now, self.round_trip))
                and self.state is State.OPEN
            ):
                self.control(frames.credit(stream.id, credit))
        elif not stream.unconsumed and self.table.lingering:
            self.table.lingering.discard(stream)

    def send_interim(self, stream: Stream, head: bytes) -> None:
        """An informational answer goes ahead of everything: it is small, and only useful early; or else dropped."""
        if self.outbox.is_loaded:
            return
        start = frames.answer_head(head)
        self.control(HEADER.pack(ANSWER, INTERIM, len(start), stream.id) + start)

    def new_receive_window(self) -> ReceiveWindow:
        """A fresh stream's credit."""
        return ReceiveWindow(self.hello.stream_credit, self.settings.stream_credit_max, self.now)

    # ---------------------------------------------------------------- within

    def find(self, stream_id: int, size: int) -> Stream | None:
        """The stream that a frame is for; None when it is over already, or when it never was (then the tunnel has
        failed)."""
        self.uncredited += size
        stream = self.table.open.get(stream_id)
        if stream is None and (stream_id > self.table.last_id or not stream_id):
            self.fail("protocol-error", f"a frame for stream {stream_id}, which was never opened")
        return stream

    def accept_body(self, stream: Stream, event: Event, size: int) -> bool:
        """Let the stream's state and credit judge; a violation ends the tunnel."""
        if stream.receive(event, size):
            self.budget.used += size
            if not size or stream.unconsumed == size:
                stream.progress_at = self.now
            return True
        self.fail("protocol-error", f"{event.name} of {size} bytes does not fit {stream!r}")
        return False

    def become_busy(self, now: float) -> None:
        due = self.liveness.on_busy(now)
        if due < self.deadline:
            self.deadline = due
