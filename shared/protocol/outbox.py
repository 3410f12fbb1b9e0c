"""What goes into the next message, chosen as late as possible.

Control frames first. Then streams in turn: *fresh* ones, which have sent little, before *bulk*; but where bulk waits,
each message keeps a place for it, so neither starves. A DATA frame is short while others wait, save where all of them
are bulk: then each has a message in its turn, and its reader one write instead of four. What has no credit is parked
until credit comes. The heads of pushes and answers are not counted against credit (their number is bounded by the
streams).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from shared.protocol.credit import TunnelWindow
from shared.protocol.frames import (
    ANSWER,
    ANSWER_FIXED,
    ANSWER_START,
    DATA,
    END,
    FULL_MESSAGE,
    HEADER,
    HEADER_SIZE,
    OPEN,
    OPEN_FIXED,
    OPEN_START,
)
from shared.protocol.settings import Settings
from shared.protocol.stalls import StallWatch
from shared.protocol.stream import Stream

_SMALLEST_FRAME: Final = 256
"""With less room than this left, a message is closed rather than filled with a sliver."""

MAX_CONTROL: Final = 1024 * 1024
"""Bytes of control frames that may wait. Only a peer that makes us answer and reads nothing gets there."""


_COMPACT_AFTER: Final = 256
"""Streams that ended in a queue, after which the queues are gone through."""


class Outbox:
    """The queue of everything that is to be sent on one tunnel."""

    __slots__ = (
        "_bulk",
        "_bulk_after",
        "_control",
        "_control_size",
        "_dead",
        "_fair_chunk",
        "_fresh",
        "_head_kind",
        "_on_open",
        "_on_taken",
        "_pong",
        "_starved",
        "stalls",
        "window",
    )

    def __init__(
        self, settings: Settings, window: TunnelWindow, *, is_opener: bool,
        on_open: Callable[[Stream], None], on_taken: Callable[[Stream, int], None],
    ) -> None:  # fmt: skip
        self.window = window
        self._control: deque[bytes] = deque()
        self._control_size = 0
        self._pong: bytes | None = None
        self._dead = 0
        self._fresh: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()
        self._starved: list[Stream] = []
        self.stalls = StallWatch()
        self._fair_chunk = settings.fair_chunk
        self._bulk_after = settings.bulk_after
        self._head_kind = OPEN if is_opener else ANSWER
        self._on_open = on_open
        self._on_taken = on_taken

    def __repr__(self) -> str:
        return (
            f"<Outbox control={len(self._control)} fresh={len(self._fresh)} bulk={len(self._bulk)} "
            f"starved={len(self._starved)} {self.window!r}>"
        )

    @property
    def has_output(self) -> bool:
        """Whether `next_message` may have something."""
        return bool(self._control or self._fresh or self._bulk or self._pong)

    def add_control(self, frame: bytes) -> None:
        """Queue a frame that goes ahead of all streams' data."""
        self._control.append(frame)
        self._control_size += len(frame)

    def set_pong(self, frame: bytes) -> None:
        """Queue the answer to a PING, in place of one that still waits: only the last counts, so a flood of pings
        costs nothing."""
        self._pong = frame

    @property
    def is_loaded(self) -> bool:
        """Whether so many control frames wait that those which are only useful early are useless."""
        return self._control_size > MAX_CONTROL >> 4

    @property
    def is_starved(self) -> bool:
        """Whether streams wait for the tunnel's credit."""
        return bool(self._starved)

    @property
    def is_flooded(self) -> bool:
        """Whether more control frames wait than any honest peer could cause."""
        return self._control_size > MAX_CONTROL

    def add(self, stream: Stream) -> None:
        """Give a stream its turn, if it has something to send and credit to send it."""
        if stream.is_queued or stream.is_finished:
            return
        if stream.pending_head is None and (not stream.has_output or (stream.buffered and not stream.credit)):
            if stream.buffered:
                self.stalls.wait(stream)
            return
        if self.stalls.waiting:
            self.stalls.go_on(stream)
        stream.is_queued = True
        (self._bulk if stream.sent_bytes > self._bulk_after else self._fresh).append(stream)

    def discard(self, stream: Stream) -> None:
        """A stream is over. If it is in a queue it leaves it now or with many others, so that they cannot pile up."""
        if self.stalls.waiting:
            self.stalls.go_on(stream)
        if stream.is_queued:
            self._dead += 1
            if self._dead >= _COMPACT_AFTER:
                self._dead = 0
                self._fresh = deque(one for one in self._fresh if not one.is_finished)
                self._bulk = deque(one for one in self._bulk if not one.is_finished)
                self._starved = [one for one in self._starved if not one.is_finished]

    def on_tunnel_credit(self) -> None:
        """The tunnel has room again: whoever waited for it gets its turn."""
        if self._starved:
            self.stalls.feed()
        starved, self._starved = self._starved, []
        for stream in starved:
            stream.is_queued = False
            self.add(stream)

    def clear(self) -> None:
        """Forget everything: the tunnel is over."""
        self._control.clear()
        self._control_size = 0
        self._pong = None
        self._fresh.clear()
        self._bulk.clear()
        self._starved.clear()
        self.stalls.end()

    def next_message(self) -> bytes | None:
        """The next message, at most 64 KiB; None when nothing can be sent now."""
        parts: list[bytes | memoryview] = []
        room = FULL_MESSAGE
        control = self._control
        while control and len(control[0]) <= room:
            frame = control.popleft()
            parts.append(frame)
            room -= len(frame)
            self._control_size -= len(frame)
        # A PONG says that everything said before it has been said: it must not overtake a RESET.
        if self._pong is not None and not control and len(self._pong) <= room:
            parts.append(self._pong)
            room -= len(self._pong)
            self._pong = None
        if self._fresh:
            keep = self._fair_chunk if self._bulk else 0
            room = self._fill(self._fresh, parts, room - keep) + keep
        if self._bulk:
            self._fill(self._bulk, parts, room)
        if not parts:
            return None
        # A single frame that is one object already needs no copy; nearly all have several parts.
        return b"".join(parts)

    def _fill(self, queue: deque[Stream], parts: list[bytes | memoryview], room: int) -> int:
        """Take from one queue until the room or the queue is used up; the room that is left."""
        while queue and room > _SMALLEST_FRAME:
            stream = queue[0]
            head = stream.pending_head
            overhead = HEADER_SIZE if head is None else HEADER_SIZE + 10 + len(head)
            if overhead > room:
                break
            queue.popleft()
            stream.is_queued = False
            if not stream.is_finished:
                room -= self._take(
                    stream,
                    head,
                    room - overhead,
                    parts,
                    is_alone=not queue or (queue is self._bulk and not self._fresh),
                )
        return room

    def _take(
        self, stream: Stream, head: bytes | None, room: int, parts: list[bytes | memoryview], *, is_alone: bool
    ) -> int:
        """Make one frame of a stream; the bytes of the message that it uses."""
        size = 0
        waits_for_tunnel = False
        at = len(parts)
        parts.append(b"")  # the frame's header goes here when its size is known
        if stream.buffered:
            limit = min(room if is_alone or room < self._fair_chunk else self._fair_chunk, stream.credit)
            in_tunnel = self.window.room(is_bulk=stream.sent_bytes > self._bulk_after)
            if in_tunnel < limit:
                waits_for_tunnel = in_tunnel < stream.buffered
                limit = in_tunnel
            if limit > 0:
                size = stream.cut(limit, parts)
                stream.credit -= size
        has_end = stream.take_end()
        used = HEADER_SIZE + size
        if head is not None:
            used += self._put_head(stream, head, parts, at, size, has_end=has_end)
        elif size or has_end:
            parts[at] = HEADER.pack(DATA, END if has_end else 0, size, stream.id)
        else:
            used = 0
        if stream.buffered:
            self._park(stream, waits_for_tunnel=waits_for_tunnel)
        if used:
            self._on_taken(stream, size)
        return used

    def _put_head(
        self, stream: Stream, head: bytes, parts: list[bytes | memoryview], at: int, size: int, *, has_end: bool
    ) -> int:
        """Put a stream's first frame's header, with the head of its push or answer, at its place; the head's bytes."""
        stream.pending_head = None
        if self._head_kind == OPEN:
            self._on_open(stream)  # the identifier is given here, so that identifiers grow in the order of sending
            used = OPEN_FIXED.size + len(head)
            deadline = int(stream.deadline * 1e6)
            parts[at] = OPEN_START.pack(OPEN, END if has_end else 0, used + size, stream.id, deadline, len(head)) + head
        else:
            used = ANSWER_FIXED.size + len(head)
            parts[at] = ANSWER_START.pack(ANSWER, END if has_end else 0, used + size, stream.id, len(head)) + head
        return used

    def _park(self, stream: Stream, *, waits_for_tunnel: bool) -> None:
        if waits_for_tunnel and stream.credit:
            stream.is_queued = True
            self._starved.append(stream)
            self.stalls.starve()
        else:
            self.add(stream)
