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

import enum
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from shared.errors import FAULTS, LocalFault
from shared.protocol import frames
from shared.protocol.budget import MemoryBudget
from shared.protocol.clock import PeerClock
from shared.protocol.credit import ReceiveWindow, TunnelWindow
from shared.protocol.frames import (
    ANSWER,
    ANSWER_FIXED,
    CREDIT,
    DATA,
    DRAIN,
    END,
    HEADER,
    HEADER_SIZE,
    HELLO,
    INTERIM,
    MAX_MESSAGE,
    MAX_STREAM_ID,
    OPEN,
    OPEN_FIXED,
    PING,
    PONG,
    REFUSED,
    RESET,
    TARGETS,
)  # fmt: skip
from shared.protocol.hello import BadHello, Hello, common_version, parse_targets, serialize_targets
from shared.protocol.liveness import Liveness
from shared.protocol.outbox import Outbox
from shared.protocol.quarantine import DEAD_ON_ARRIVAL, HELD_KINDS, Quarantine
from shared.protocol.settings import Settings
from shared.protocol.stream import Event, Stream
from shared.protocol.stream_table import StreamTable

TUNNEL_CREDIT_STEP: Final = 32 * 1024
"""The tunnel's credit goes back by so many bytes: half a message, a frame of 12 bytes in a while."""

_TUNNEL_LOST: Final = FAULTS["tunnel-lost"].wire
_OUT_OF_CREDIT: Final = FAULTS["out-of-credit"].wire
_DEADLINE: Final = FAULTS["deadline-exceeded"].wire
_REFUSED: Final = FAULTS["tunnel-refused"].wire
_INTERNAL: Final = FAULTS["connector-error"].wire


class Role(enum.Enum):
    """Which end this is: the relay opens streams, the connector answers them."""

    RELAY = "relay"
    CONNECTOR = "connector"


class State(enum.Enum):
    """The life of a tunnel."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class ConnectionHandler(Protocol):
    """What a connection calls; each call may call back into the connection."""

    def on_ready(self, hello: Hello) -> None:
        """The peer's HELLO came and fits."""

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """At the connector: a push. Set `stream.handler`; answer or reset it, now or later."""

    def on_targets(self, targets: Mapping[str, str]) -> None:
        """At the relay: the connector exposes these from now on."""

    def on_drain(self, timeout: float) -> None:
        """The peer will close this tunnel within so many seconds: no new pushes here."""

    def on_drained(self) -> None:
        """We drain, and the last stream is done (or the time is up): close."""

    def on_failed(self, code: str, detail: str) -> None:
        """The tunnel is over by a violation, by silence, or by a hello that does not fit: close. `detail` is for our
        log."""

    def on_error(self, error: Exception) -> None:
        """A handler of ours raised; its stream was reset."""

    def on_output(self) -> None:
        """There is something to send, where there was nothing before."""


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
        self._handler = handler
        self._now = now
        self._is_relay = role is Role.RELAY
        self._window = TunnelWindow(settings, settings.tunnel_window_max, now)
        self._outbox = Outbox(
            settings, self._window, is_opener=self._is_relay, on_open=self._on_open, on_taken=self._on_taken
        )
        self._uncredited = 0
        self._quarantine: Quarantine | None = None
        self._writable: list[Stream] = []
        self._is_announced = False
        self._hello_by = now + settings.hello_timeout
        self._drain_by = float("inf")
        self._drain_is_acked = False
        self._parsers: dict[int, Callable[[int, int, bytes], None]] = {
            PING: self._on_ping, PONG: self._on_pong, CREDIT: self._on_credit,
            DRAIN: self._on_drain, TARGETS: self._on_targets,
        }  # fmt: skip
        self.deadline = self._hello_by
        budget.join(self.table)
        self._outbox.add_control(frames.tunnel_frame(HELLO, hello.serialize()))

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {self.state.value} {self.table!r} {self._outbox!r}>"

    # ---------------------------------------------------------------- what the application asks

    @property
    def in_flight(self) -> int:
        """Streams that are open, or wait to be."""
        return self.table.in_flight

    @property
    def round_trip(self) -> float:
        """The best guess at the path's round trip, seconds; infinite before the first measurement."""
        return min(self.clock.round_trip, self._window.round_trip)

    @property
    def can_open(self) -> bool:
        """Whether a push may be put on this tunnel now."""
        peer = self.peer
        return (
            self.state is State.OPEN and peer is not None and self._is_relay and not self.is_draining
            and not self.peer_is_draining and not self.is_suspect and self.in_flight < peer.max_streams
        )  # fmt: skip

    def open_stream(self, stream_head: bytes, body: bytes, end: bool, deadline: float, now: float) -> Stream:
        """At the relay: put a push on this tunnel; set the stream's handler before anything else is fed.

        `deadline` is in seconds of our clock, 0 for none. Raises LocalFault (tunnel-refused) when `can_open` is false.
        """
        peer = self.peer
        if peer is None or not self.can_open:
            raise LocalFault("tunnel-refused", f"{self!r} takes no push")
        self._now = now
        if not self.liveness.is_busy:
            self._become_busy(now)
        stream = Stream(self, peer.stream_credit, is_opener=True, now=now)
        stream.deadline = deadline
        self.table.waiting.add(stream)
        stream.open(stream_head, body, end)
        return stream

    def update_targets(self, targets: Mapping[str, str]) -> None:
        """At the connector: tell the relay what is exposed from now on."""
        if self.state is not State.CLOSED:
            self._control(frames.tunnel_frame(TARGETS, serialize_targets(targets)))

    def ping(self, now: float) -> None:
        """Ask for a sign of life; `liveness.last_received` tells whether one came."""
        if self.state is not State.CLOSED:
            self.liveness.last_ping = now
            self._control(frames.ping(int(now * 1e6)))

    def drain(self, timeout: float, now: float) -> None:
        """Take nothing new, finish what is open, then `on_drained`; after `timeout` seconds in any case."""
        if self.state is State.CLOSED or self.is_draining:
            return
        self.is_draining = True
        self._drain_by = now + timeout
        self._control(frames.drain(timeout))
        self._schedule(now)
        self._check_drained()

    def lost(self, now: float) -> None:
        """The transport is gone, or about to be closed: every stream ends."""
        if self.state is State.CLOSED:
            return
        self._now = now
        self.state = State.CLOSED
        self.deadline = float("inf")
        self.budget.leave(self.table)
        self._outbox.clear()
        self._quarantine = None
        for stream in self.table.empty():
            self._end_stream(stream, _TUNNEL_LOST, refused=not stream.was_sent)

    # ---------------------------------------------------------------- what the driver feeds

    def note_alive(self, now: float) -> None:
        """Some bytes came."""
        self.liveness.last_received = now
        self.is_suspect = False

    def note_gap(self, now: float) -> None:
        """We were away for a while: what now comes may be old. At the connector nothing goes to a target before a
        fresh PONG."""
        self.liveness.forgive(now)
        self._now = now
        if self.state is State.OPEN and not self._is_relay:
            until = int(now * 1e6)
            if self._quarantine is None:
                self._quarantine = Quarantine(until)
            self._quarantine.until = until
            self.ping(now)

    def receive_message(self, message: bytes, now: float) -> None:
        """Take in one message: calls the handlers of everything in it."""
        self._now = now
        self.liveness.last_received = now
        self.is_suspect = False
        if len(message) > MAX_MESSAGE:
            self._fail("protocol-error", f"a message of {len(message)} bytes")
            return
        position, size = 0, len(message)
        unpack = HEADER.unpack_from
        while position < size:
            if size - position < HEADER_SIZE:
                self._fail("protocol-error", "truncated frame header")
                return
            kind, flags, length, stream_id = unpack(message, position)
            position += HEADER_SIZE
            end = position + length
            if end > size:
                self._fail("protocol-error", "truncated frame payload")
                return
            self._receive_frame(kind, flags, stream_id, message[position:end])
            if self.state is State.CLOSED:
                return
            position = end
        if self._uncredited >= TUNNEL_CREDIT_STEP and self._quarantine is None:
            self._control(frames.credit(0, self._uncredited))
            self._uncredited = 0
        if self.budget.is_spent:
            self.relieve()

    @property
    def has_output(self) -> bool:
        """Whether `next_message` may have something."""
        return self._outbox.has_output

    def next_message(self, now: float) -> bytes | None:
        """The next message to hand to the transport, chosen now; None when there is nothing, or no credit."""
        self._now = now
        self._is_announced = False
        message = self._outbox.next_message()
        if message is not None:
            self.liveness.last_sent = now
        if self._writable:
            writable, self._writable = self._writable, []
            for stream in writable:
                if not stream.is_finished:
                    self._guard(stream, stream.handler.on_writable)
        if self.is_draining:
            self._check_drained()
        return message

    def handle_deadline(self, now: float) -> None:
        """The time in `deadline` has come: look at everything that waits, and set the next."""
        if self.state is State.CLOSED:
            return
        self._now = now
        liveness = self.liveness
        if self.state is State.GREETING and now >= self._hello_by:
            self._fail("silent", "no HELLO in time")
        elif liveness.is_dead(now):
            self._fail("silent", f"silent for {liveness.silence(now):.1f} s")
        elif now >= self._drain_by:
            self._drain_by = float("inf")
            self._handler.on_drained()
        else:
            self.is_suspect = self._is_relay and liveness.is_suspect(now)
            if self.state is State.OPEN and liveness.wants_ping(now):
                self.ping(now)
        self._schedule(now)

    # ---------------------------------------------------------------- what streams call

    def on_queued(self, stream: Stream, n: int) -> None:
        """A stream has something to send."""
        self.budget.used += n
        self._outbox.add(stream)
        if not self._is_announced:
            self._announce()

    def on_consumed(self, stream: Stream, n: int) -> None:
        """A stream's reader is done with bytes."""
        self.budget.used -= n
        stream.progress_at = self._now
        if stream.is_receiving:
            window = stream.receive_window
            if (
                window is not None
                and (credit := window.on_consumed(n, self._now, self.round_trip))
                and self.state is State.OPEN
            ):
                self._control(frames.credit(stream.id, credit))
        elif not stream.unconsumed:
            self.table.lingering.discard(stream)

    def send_interim(self, stream: Stream, head: bytes) -> None:
        """An informational answer goes ahead of everything: it is small, and only useful early."""
        start = frames.answer_head(head)
        self._control(HEADER.pack(ANSWER, INTERIM, len(start), stream.id) + start)

    def reset_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """Our side ends a stream; its handler is not called."""
        if stream.id and not stream.is_finished and self.state is State.OPEN:
            self._control(frames.reset(stream.id, wire_code, refused=refused))
        self._forget(stream)
        self.budget.used -= stream.drop()
        self._check_drained()

    def new_receive_window(self) -> ReceiveWindow:
        """A fresh stream's credit."""
        return ReceiveWindow(self.hello.stream_credit, self.settings.stream_credit_max, self._now)

    # ---------------------------------------------------------------- frames

    def _receive_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self.state is State.GREETING:
            self._greet(kind, payload)
        elif self._quarantine is not None and kind in HELD_KINDS:
            if not self._quarantine.add(kind, flags, stream_id, payload):
                self._fail("protocol-error", "more than its credit from a peer that owes a PONG")
        elif kind == DATA:
            self._on_data(flags, stream_id, payload)
        elif kind == ANSWER:
            self._on_answer(flags, stream_id, payload)
        elif kind == OPEN:
            self._on_open_frame(flags, stream_id, payload)
        elif kind == RESET:
            self._on_reset(flags, stream_id, payload)
        elif kind == HELLO:
            self._fail("protocol-error", "a second HELLO")
        elif (parser := self._parsers.get(kind)) is not None:
            parser(flags, stream_id, payload)

    def _greet(self, kind: int, payload: bytes) -> None:
        if kind != HELLO:
            if kind in frames.NAMES:
                self._fail("protocol-error", f"{frames.NAMES[kind]} before HELLO")
            return
        try:
            peer = Hello.parse(payload)
        except BadHello as error:
            self._fail("protocol-error", f"HELLO: {error}")
            return
        version = common_version(self.hello, peer)
        if version is None:
            self._fail("version-mismatch", f"ours {self.hello.versions}, theirs {peer.versions[:8]}")
            return
        self.version = version
        self.peer = peer
        self.state = State.OPEN
        self._window = TunnelWindow(self.settings, min(self.settings.tunnel_window_max, peer.tunnel_credit), self._now)
        self._outbox.window = self._window
        if not self._is_relay:
            self.clock.on_hello(peer.clock, self._now)
            self.ping(self._now)
        self._schedule(self._now)
        self._handler.on_ready(peer)

    def _on_open_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._is_relay or stream_id <= self.table.last_id or len(payload) < 10:
            self._fail("protocol-error", f"OPEN out of place (stream {stream_id})")
            return
        deadline, head_size = OPEN_FIXED.unpack_from(payload)
        body_at = 10 + head_size
        if body_at > len(payload):
            self._fail("protocol-error", "OPEN: the head is cut short")
            return
        self.table.last_id = stream_id
        body = payload[body_at:]
        self._uncredited += len(body)
        local_deadline = self.clock.to_local(deadline) if deadline else 0.0
        if local_deadline and local_deadline <= self._now:
            self._control(frames.reset(stream_id, _DEADLINE, refused=True))
            return
        peer = self.peer
        if flags & DEAD_ON_ARRIVAL:
            return
        if len(self.table.open) >= self.hello.max_streams or peer is None:
            self._control(frames.reset(stream_id, _REFUSED, refused=True))
            return
        stream = Stream(self, peer.stream_credit, is_opener=False, now=self._now)
        stream.id = stream_id
        stream.deadline = local_deadline
        stream.was_sent = True
        self.table.open[stream_id] = stream
        if not self.liveness.is_busy:
            self._become_busy(self._now)
        is_end = bool(flags & END)
        if not self._accept_body(stream, Event.DATA_END if is_end else Event.DATA, len(body)):
            return
        try:
            self._handler.on_stream(stream, payload[10:body_at], body, is_end)
        except Exception as error:  # noqa: BLE001  # whatever a handler of ours does must not end the tunnel
            self._on_handler_error(stream, error)

    def _on_answer(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._is_relay or len(payload) < 2:
            self._fail("protocol-error", f"ANSWER out of place (stream {stream_id})")
            return
        (head_size,) = ANSWER_FIXED.unpack_from(payload)
        body_at = 2 + head_size
        if body_at > len(payload):
            self._fail("protocol-error", "ANSWER: the head is cut short")
            return
        size = len(payload) - body_at
        stream = self._find(stream_id, size)
        if stream is None:
            return
        is_end, is_interim = bool(flags & END), bool(flags & INTERIM)
        if is_interim and (is_end or size):
            self._fail("protocol-error", "an interim ANSWER with a body or an end")
            return
        event = Event.INTERIM if is_interim else Event.ANSWER_END if is_end else Event.ANSWER
        if not self._accept_body(stream, event, size):
            return
        if is_end:
            self._on_peer_end(stream)
        try:
            stream.handler.on_answer(payload[2:body_at], payload[body_at:], is_end, is_interim)
        except Exception as error:  # noqa: BLE001  # likewise
            self._on_handler_error(stream, error)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        stream = self._find(stream_id, len(payload))
        if stream is None:
            return
        is_end = bool(flags & END)
        if not self._accept_body(stream, Event.DATA_END if is_end else Event.DATA, len(payload)):
            return
        if is_end:
            self._on_peer_end(stream)
        try:
            stream.handler.on_data(payload, is_end)
        except Exception as error:  # noqa: BLE001  # likewise
            self._on_handler_error(stream, error)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) < 2:
            self._fail("protocol-error", "RESET is cut short")
            return
        stream = self._find(stream_id, 0)
        if stream is not None:
            (wire_code,) = frames.U16.unpack_from(payload)
            self._forget(stream)
            self._end_stream(stream, wire_code, refused=bool(flags & REFUSED))
            self._check_drained()

    def _on_credit(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) < 4:
            self._fail("protocol-error", "CREDIT is cut short")
            return
        (increment,) = frames.U32.unpack_from(payload)
        if not stream_id:
            if not self._window.on_credit(increment, self._now):
                self._fail("protocol-error", "more credit than was used")
                return
            self._outbox.on_tunnel_credit()
            self._announce()
            return
        stream = self._find(stream_id, 0)
        if stream is not None:
            stream.credit = min(stream.credit + increment, 1 << 40)
            self.on_queued(stream, 0)

    def _on_ping(self, _flags: int, _stream_id: int, payload: bytes) -> None:
        if len(payload) < 8:
            self._fail("protocol-error", "PING is cut short")
            return
        self._outbox.set_pong(frames.pong(frames.U64.unpack_from(payload)[0], int(self._now * 1e6)))
        self._announce()

    def _on_pong(self, _flags: int, _stream_id: int, payload: bytes) -> None:
        if len(payload) < 16:
            self._fail("protocol-error", "PONG is cut short")
            return
        token, clock = frames.U64X2.unpack_from(payload)
        if token / 1e6 > self._now + 1e-3:
            self._fail("protocol-error", "PONG to a ping that was never sent")
            return
        self.clock.on_pong(token / 1e6, clock, self._now)
        quarantine = self._quarantine
        if quarantine is not None and token >= quarantine.until:
            self._quarantine = None
            for frame in quarantine.release():
                if self.state is State.OPEN:
                    self._receive_frame(*frame)

    def _on_drain(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if len(payload) < 4:
            self._fail("protocol-error", "DRAIN is cut short")
            return
        if flags & frames.ACK and not self._is_relay:
            self._drain_is_acked = True
            self._check_drained()
            return
        if self.peer_is_draining:
            return
        self.peer_is_draining = True
        if self._is_relay:
            # What waits in the outbox was opened before; ahead of it this would be a lie. So it goes to another tunnel.
            for stream in list(self.table.waiting):
                self._forget(stream)
                self._end_stream(stream, _REFUSED, refused=True)
            self._control(frames.drain(0, ack=True))
        self._handler.on_drain(frames.U32.unpack_from(payload)[0] / 1000)

    def _on_targets(self, _flags: int, _stream_id: int, payload: bytes) -> None:
        if not self._is_relay:
            self._fail("protocol-error", "TARGETS from the relay")
            return
        try:
            targets = parse_targets(payload)
        except BadHello as error:
            self._fail("protocol-error", f"TARGETS: {error}")
            return
        self._handler.on_targets(targets)

    # ---------------------------------------------------------------- within

    def _on_open(self, stream: Stream) -> None:
        """The outbox puts a stream's first frame into a message: it gets its identifier."""
        self.table.number(stream)
        if self.table.last_id >= MAX_STREAM_ID:
            self.is_draining = True  # the next tunnel starts at 1 again

    def _on_taken(self, stream: Stream, size: int) -> None:
        """The outbox put `size` bytes of a stream's body into a message."""
        stream.was_sent = True
        if size:
            self.budget.used -= size
            self._window.on_sent(size, self._now)
            stream.progress_at = self._now
            if stream.wants_writable and stream.buffered <= self.settings.stream_high_water >> 1:
                stream.wants_writable = False
                self._writable.append(stream)
        if stream.is_done:
            self._finish(stream)

    def _find(self, stream_id: int, size: int) -> Stream | None:
        """The stream that a frame is for; None when it is over already, or when it never was (then the tunnel has
        failed)."""
        self._uncredited += size
        stream = self.table.open.get(stream_id)
        if stream is None and (stream_id > self.table.last_id or not stream_id):
            self._fail("protocol-error", f"a frame for stream {stream_id}, which was never opened")
        return stream

    def _accept_body(self, stream: Stream, event: Event, size: int) -> bool:
        """Let the stream's state and credit judge; a violation ends the tunnel."""
        if stream.receive(event, size):
            self.budget.used += size
            if not size or stream.unconsumed == size:
                stream.progress_at = self._now
            return True
        self._fail("protocol-error", f"{event.name} of {size} bytes does not fit {stream!r}")
        return False

    def _on_peer_end(self, stream: Stream) -> None:
        if stream.is_done:
            self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Both halves are over; bytes that nobody has read yet still count."""
        self._forget(stream)
        stream.is_finished = True
        if stream.unconsumed:
            self.table.lingering.add(stream)
        self._check_drained()

    def _forget(self, stream: Stream) -> None:
        table = self.table
        table.forget(stream)
        if not table.open and not table.waiting:
            self.liveness.on_idle()
            self.is_suspect = False

    def _end_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """A stream that was forgotten ends by the peer's or the tunnel's doing."""
        self.budget.used -= stream.drop()
        self._guard(stream, lambda: stream.handler.on_reset(wire_code, refused))

    def relieve(self) -> None:
        """While the memory budget is spent, the worst stream of the whole process has to go."""
        while self.budget.is_spent and (victim := self.budget.pick_victim(self._now)) is not None:
            victim.evict(_OUT_OF_CREDIT)

    def evict(self, stream: Stream, wire_code: int) -> None:
        """End a stream of ours against both sides' will."""
        if stream.id and not stream.is_finished:
            self._control(frames.reset(stream.id, wire_code, refused=False))
        self._forget(stream)
        self._end_stream(stream, wire_code, refused=not stream.was_sent)
        self._check_drained()

    def _check_drained(self) -> None:
        if not self.is_draining or self.table.in_flight or self.state is not State.OPEN or self._outbox.has_output:
            return
        if self._is_relay or self._drain_is_acked:
            self._drain_by = float("inf")
            self._handler.on_drained()

    def _become_busy(self, now: float) -> None:
        self.liveness.on_busy(now)
        due = self.liveness.next_deadline()
        if due < self.deadline:
            self.deadline = due

    def _schedule(self, now: float) -> None:
        if self.state is State.GREETING:
            self.deadline = min(self._hello_by, self._drain_by)
        elif self.state is State.OPEN:
            # Not before the shortest interval: what is due at once was just done.
            self.deadline = min(max(self.liveness.next_deadline(), now + 0.05), self._drain_by)
        else:
            self.deadline = float("inf")

    def _control(self, frame: bytes) -> None:
        self._outbox.add_control(frame)
        if not self._is_announced:
            self._announce()
        elif self._outbox.is_flooded:
            self._fail("protocol-error", "the peer makes us answer and reads nothing")

    def _announce(self) -> None:
        """Tell the driver, once until it asks for a message, that there is something to send."""
        if not self._is_announced and self._outbox.has_output:
            self._is_announced = True
            self._handler.on_output()

    def _guard(self, stream: Stream, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # likewise
            self._on_handler_error(stream, error)

    def _on_handler_error(self, stream: Stream, error: Exception) -> None:
        stream.reset(_INTERNAL)
        self._handler.on_error(error)

    def _fail(self, code: str, detail: str) -> None:
        if self.state is State.CLOSED:
            return
        self.lost(self._now)
        self._handler.on_failed(code, detail)
