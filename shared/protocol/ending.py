"""How a tunnel, and streams in it, end: drained, lost, failed, reset, evicted. What is below the frames.

A stream ends once, and everything that counts it is told in `finish` or `forget`: the table, the budget of memory, the
outbox, who waits for a place, and a drain that waits for the last one. A tunnel ends with `lost`, whatever the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shared.errors import FAULTS
from shared.protocol import frames
from shared.protocol.budget import MemoryBudget
from shared.protocol.clock import PeerClock
from shared.protocol.credit import TunnelWindow
from shared.protocol.driver import ConnectionHandler, Role, State
from shared.protocol.frames import HELLO, MAX_STREAM_ID
from shared.protocol.hello import Hello
from shared.protocol.liveness import Liveness
from shared.protocol.outbox import Outbox
from shared.protocol.quarantine import Quarantine
from shared.protocol.settings import Settings
from shared.protocol.stream import Stream
from shared.protocol.stream_table import StreamTable

_TUNNEL_LOST: Final = FAULTS["tunnel-lost"].wire
_OUT_OF_CREDIT: Final = FAULTS["out-of-credit"].wire
_INTERNAL: Final = FAULTS["connector-error"].wire


class EndingConnection:
    """One end of a tunnel, as far as its state and its ends go; see `Connection`."""

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

    # ---------------------------------------------------------------- the tunnel

    def judge(self) -> None:
        """Something that `accepts` depends on has changed."""
        self.accepts = (
            self.is_relay
            and self.state is State.OPEN
            and not (self.is_suspect or self.is_draining or self.peer_is_draining or self.hello.renew_only)
        )

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

    def check_drained(self) -> None:
        if not self.is_draining or self.table.in_flight or self.state is not State.OPEN or self.outbox.has_output:
            return
        if self.is_relay or self.drain_is_acked:
            self._drain_by = float("inf")
            self.handler.on_drained()

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

    def fail(self, code: str, detail: str) -> None:
        if self.state is State.CLOSED:
            return
        self.lost(self.now)
        self.handler.on_failed(code, detail)

    # ---------------------------------------------------------------- a stream

    def reset_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """Our side ends a stream; its handler is not called."""
        if stream.id and not stream.is_finished and self.state is State.OPEN:
            self.control(frames.reset(stream.id, wire_code, refused=refused))
        self.forget(stream)
        self.outbox.discard(stream)
        self.budget.used -= stream.drop()
        self.check_drained()

    def evict(self, stream: Stream, wire_code: int) -> None:
        """End a stream of ours against both sides' will."""
        if stream.id and not stream.is_finished:
            self.control(frames.reset(stream.id, wire_code, refused=False))
        self.forget(stream)
        self.end_stream(stream, wire_code, refused=not stream.was_sent)
        self.check_drained()

    def relieve(self) -> None:
        """While the memory budget is spent, the worst stream of the whole process has to go."""
        while self.budget.is_spent and (victim := self.budget.pick_victim(self.now)) is not None:
            victim.evict(_OUT_OF_CREDIT)

    def end_stream(self, stream: Stream, wire_code: int, *, refused: bool) -> None:
        """A stream that was forgotten ends by the peer's or the tunnel's doing."""
        handler = stream.handler
        self.outbox.discard(stream)
        self.budget.used -= stream.drop()
        self._guard(stream, lambda: handler.on_reset(wire_code, refused))

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

    def leave_quarantine(self) -> None:
        """What was held counts no longer: it is passed on, or lost."""
        if self.quarantine is not None:
            self.budget.used -= self.quarantine.size
            self.quarantine = None

    def on_handler_error(self, stream: Stream, error: Exception) -> None:
        stream.reset(_INTERNAL)
        self.handler.on_error(error)

    def _guard(self, stream: Stream, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # its bug costs its own stream, never the tunnel
            self.on_handler_error(stream, error)

    # ---------------------------------------------------------------- within

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

    def schedule(self, now: float) -> None:
        if self.state is State.GREETING:
            self.deadline = min(self._hello_by, self._drain_by)
        elif self.state is State.OPEN:
            # Not before the shortest interval: what is due at once was just done.
            self.deadline = min(max(self.liveness.next_deadline(), now + 0.05), self._drain_by)
        else:
            self.deadline = float("inf")

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
        if stream.wants_sent:  # whoever asked shall see that it goes on, too
            self._writable.append(stream)

    def _trust(self) -> None:
        self.is_suspect = False
        self.judge()
        if self.accepts:
            self.handler.on_usable()
