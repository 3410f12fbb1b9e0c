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

from collections.abc import Callable, Mapping
from typing import Final

from shared.errors import FAULTS, LocalFault
from shared.protocol import frames
from shared.protocol.budget import MemoryBudget
from shared.protocol.clock import PeerClock
from shared.protocol.credit import ReceiveWindow, TunnelWindow
from shared.protocol.driver import ConnectionHandler, Role, State
from shared.protocol.frames import ANSWER, HEADER, HEADER_SIZE, HELLO, INTERIM, MAX_MESSAGE, MAX_STREAM_ID, TARGETS
from shared.protocol.hello import Hello, serialize_targets
from shared.protocol.inbound import receive_frame
from shared.protocol.liveness import Liveness
from shared.protocol.outbox import Outbox
from shared.protocol.quarantine import Quarantine
from shared.protocol.renewal import Renewal
from shared.protocol.settings import Settings
from shared.protocol.stream import Event, Stream
from shared.protocol.stream_table import StreamTable

TUNNEL_CREDIT_STEP: Final = 32 * 1024
"""The tunnel's credit goes back by so many bytes: half a message, a frame of 12 bytes in a while."""

_TUNNEL_LOST: Final = FAULTS["tunnel-lost"].wire
_OUT_OF_CREDIT: Final = FAULTS["out-of-credit"].wire
_INTERNAL: Final = FAULTS["connector-error"].wire


class Connection:
    """One end of a tunnel."""

    def __init__(
        self, role: Role, handler: ConnectionHandler, hello: Hello, settings: Settings, budget: MemoryBudget, now: float
    ) -> None:
        self.role = role
        self.state = State.GREETING
        self.settings = settings
        self.budget = budget
        self.hello = hello
        self.peer: Hello | None = None
        self.version = 0
        self.table = StreamTable()
        self.clock = PeerClock()
        self.liveness = Liveness(settings, pings=role is Role.CONNECTOR, now=now)
        self.is_suspect = False
        self.is_draining = False
        self.peer_is_draining = False
        self.accepts = False
        """Whether pushes may be opened here, their number aside: kept by `judge`, since it is asked for each push."""
        self.max_streams = 0
        self.is_crowded = False
        """Whether pushes may wait elsewhere because there was no place here."""
        self.handler = handler
        self.now = now
        self.is_relay = role is Role.RELAY
        self.takes_pushes = role is Role.CONNECTOR
        self.renewal = Renewal(self)
        self.window = TunnelWindow(settings, settings.tunnel_window_max, now)
        self.outbox = Outbox(
            settings, self.window, is_opener=self.is_relay, on_open=self._on_open, on_taken=self._on_taken
        )
        self.uncredited = 0
        self.quarantine: Quarantine | None = None
        self._writable: list[Stream] = []
        self._is_announced = False
        self._hello_by = now + settings.hello_timeout
        self._drain_by = float("inf")
        self.drain_is_acked = False
        self.deadline = self._hello_by
        budget.join(self.table)
        self.outbox.add_control(frames.tunnel_frame(HELLO, hello.serialize()))

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {self.state.value} {self.table!r} {self.outbox!r}>"

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
        """The best guess at the path's round trip, seconds; infinite before the first measurement."""
        return min(self.clock.round_trip, self.window.round_trip)

    @property
    def can_open(self) -> bool:
        """Whether a push may be put on this tunnel now."""
        table = self.table
        return self.accepts and len(table.open) + len(table.waiting) < self.max_streams

    def judge(self) -> None:
        """Something that `accepts` depends on has changed."""
        self.accepts = (
            self.is_relay
            and self.state is State.OPEN
            and not (self.is_suspect or self.is_draining or self.peer_is_draining or self.hello.renew_only)
        )

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

    def drain(self, timeout: float, now: float) -> None:
        """Take nothing new, finish what is open, then `on_drained`; after `timeout` seconds in any case."""
        if self.state is State.CLOSED or self.is_draining:
            return
        self.is_draining = True
        self.judge()
        self._drain_by = now + timeout
        self.control(frames.drain(timeout))
        self.schedule(now)
        self.check_drained()

    def lost(self, now: float) -> None:
        """The transport is gone, or about to be closed: every stream ends."""
        if self.state is State.CLOSED:
            return
        self.now = now
        self.state = State.CLOSED
        self.accepts = False
        self.deadline = float("inf")
        self.budget.leave(self.table)
        self.outbox.clear()
        self.leave_quarantine()
        for stream in self.table.empty():
            self.end_stream(stream, _TUNNEL_LOST, refused=not stream.was_sent)

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

    def reset_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """Our side ends a stream; its handler is not called."""
        if stream.id and not stream.is_finished and self.state is State.OPEN:
            self.control(frames.reset(stream.id, wire_code, refused=refused))
        self.forget(stream)
        self.outbox.discard(stream)
        self.budget.used -= stream.drop()
        self.check_drained()

    def new_receive_window(self) -> ReceiveWindow:
        """A fresh stream's credit."""
        return ReceiveWindow(self.hello.stream_credit, self.settings.stream_credit_max, self.now)

    # ---------------------------------------------------------------- within

    def _on_open(self, stream: Stream) -> None:
        """The outbox puts a stream's first frame into a message: it gets its identifier."""
        self.table.number(stream)
        if self.table.last_id >= MAX_STREAM_ID:
            self.is_draining = True  # the next tunnel starts at 1 again
            self.judge()

    def _on_taken(self, stream: Stream, size: int) -> None:
        """The outbox put `size` bytes of a stream's body into a message."""
        stream.was_sent = True
        if size:
            self.budget.used -= size
            self.window.on_sent(size, self.now)
            stream.progress_at = self.now
            if stream.wants_writable and stream.buffered <= self.settings.stream_high_water >> 1:
                stream.wants_writable = False
                self._writable.append(stream)
        if stream.is_done:
            self.finish(stream)
        if stream.wants_sent and not stream.has_output:
            self._writable.append(stream)

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

    def finish(self, stream: Stream) -> None:
        """Both halves are over; bytes that nobody has read yet still count."""
        self.forget(stream)
        stream.is_finished = True
        self.budget.used -= stream.held_head
        stream.held_head = 0
        if stream.unconsumed:
            self.table.lingering.add(stream)
        if self.is_draining:
            self.check_drained()

    def forget(self, stream: Stream) -> None:
        table = self.table
        table.forget(stream)
        if self.is_crowded:
            self._tell_room()
        if not table.open and not table.waiting:
            self.liveness.on_idle()
            if self.is_suspect:
                self._trust()

    def _tell_room(self) -> None:
        """One place is free. Once nobody waits for it, nobody can before the tunnel is full again."""
        if self.accepts:
            self.is_crowded = self.handler.on_room()

    def end_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """A stream that was forgotten ends by the peer's or the tunnel's doing."""
        handler = stream.handler
        self.outbox.discard(stream)
        self.budget.used -= stream.drop()
        self._guard(stream, lambda: handler.on_reset(wire_code, refused))

    def relieve(self) -> None:
        """While the memory budget is spent, the worst stream of the whole process has to go."""
        while self.budget.is_spent and (victim := self.budget.pick_victim(self.now)) is not None:
            victim.evict(_OUT_OF_CREDIT)

    def evict(self, stream: Stream, wire_code: int) -> None:
        """End a stream of ours against both sides' will."""
        if stream.id and not stream.is_finished:
            self.control(frames.reset(stream.id, wire_code, refused=False))
        self.forget(stream)
        self.end_stream(stream, wire_code, refused=not stream.was_sent)
        self.check_drained()

    def check_drained(self) -> None:
        if not self.is_draining or self.table.in_flight or self.state is not State.OPEN or self.outbox.has_output:
            return
        if self.is_relay or self.drain_is_acked:
            self._drain_by = float("inf")
            self.handler.on_drained()

    def leave_quarantine(self) -> None:
        """What was held counts no longer: it is passed on, or lost."""
        if self.quarantine is not None:
            self.budget.used -= self.quarantine.size
            self.quarantine = None

    def _trust(self) -> None:
        self.is_suspect = False
        self.judge()
        if self.accepts:
            self.handler.on_usable()

    def become_busy(self, now: float) -> None:
        due = self.liveness.on_busy(now)
        if due < self.deadline:
            self.deadline = due

    def schedule(self, now: float) -> None:
        if self.state is State.GREETING:
            self.deadline = min(self._hello_by, self._drain_by)
        elif self.state is State.OPEN:
            # Not before the shortest interval: what is due at once was just done.
            self.deadline = min(max(self.liveness.next_deadline(), now + 0.05), self._drain_by)
        else:
            self.deadline = float("inf")

    def control(self, frame: bytes) -> None:
        self.outbox.add_control(frame)
        if not self._is_announced:
            self.announce()
        elif self.outbox.is_flooded:
            self.fail("protocol-error", "the peer makes us answer and reads nothing")

    def announce(self) -> None:
        """Tell the driver, once until it asks for a message, that there is something to send."""
        if not self._is_announced and self.outbox.has_output:
            self._is_announced = True
            self.handler.on_output()

    def _guard(self, stream: Stream, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # its bug costs its own stream, never the tunnel
            self.on_handler_error(stream, error)

    def on_handler_error(self, stream: Stream, error: Exception) -> None:
        stream.reset(_INTERNAL)
        self.handler.on_error(error)

    def fail(self, code: str, detail: str) -> None:
        if self.state is State.CLOSED:
            return
        self.lost(self.now)
        self.handler.on_failed(code, detail)
