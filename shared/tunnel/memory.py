"""A message transport without a network, for tests: a pair of ends that an event loop joins.

Each end delivers what the other sent on a later tick, as a network would. A test may `pause` a direction (what is sent
stays buffered, as behind a peer that does not read), `resume` it, or `drop` both (a network that swallows everything).
"""

from __future__ import annotations

import asyncio
from collections import deque

from shared.tunnel.transport import HIGH_WATER, MAX_MESSAGE, MessageReceiver


class MemoryTransport:
    """One end of a pair. `receiver` is to be set before the loop runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.receiver: MessageReceiver | None = None
        self.sent: list[bytes] = []
        self._loop = loop
        self._name = name
        self._peer: MemoryTransport = self
        self._queue: deque[bytes] = deque()
        self._buffered = 0
        self._is_paused = False
        self._is_dropping = False
        self._is_scheduled = False
        self._is_closing = False
        self._is_closed = False
        self._is_aborted = False
        self._close_message: tuple[int, str] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "closing" if self._is_closing else "open"
        return f"<MemoryTransport {self._name} {state} buffered={self._buffered}>"

    # MessageTransport

    def send(self, message: bytes) -> None:
        if self._is_closing:
            return
        if len(message) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes")
        if not message:
            return
        self.sent.append(message)
        self._queue.append(message)
        self._buffered += len(message)
        self._schedule()

    def buffered(self) -> int:
        return self._buffered

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self._is_closing:
            self._is_closing = True
            self._close_message = (code, reason.encode()[:120].decode(errors="ignore"))
            self._schedule()

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closing = self._is_aborted = True
            self._queue.clear()
            self._loop.call_soon(self._end, None, "", None)
            if not self._is_dropping:
                self._loop.call_soon(self._peer._end, None, "", ConnectionResetError("the peer aborted"))

    def describe(self) -> str:
        return self._name

    # A test's grip on the network.

    def pause(self) -> None:
        """Deliver nothing of this end's any more; it stays buffered."""
        self._is_paused = True

    def resume(self) -> None:
        """Deliver again, and what was held back first."""
        self._is_paused = False
        self._schedule()

    def drop(self) -> None:
        """Swallow everything in both directions from now on, goodbyes included: a half-open connection."""
        self._is_dropping = self._peer._is_dropping = True

    # The network.

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_paused:
            self._is_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        while self._queue and not self._is_paused and not self._is_closed:
            message = self._queue.popleft()
            was_above = self._buffered > HIGH_WATER
            self._buffered -= len(message)
            self._peer._take(message, is_lost=self._is_dropping)
            if was_above and self._buffered <= HIGH_WATER and not self._is_closing and self.receiver is not None:
                self.receiver.transport_writable()
        if self._close_message is not None and not self._queue and not self._is_paused and not self._is_dropping:
            self._say_goodbye(self._close_message)

    def _take(self, message: bytes, *, is_lost: bool) -> None:
        if self.receiver is not None and not self._is_closed and not self._is_aborted and not is_lost:
            self.receiver.bytes_received()
            self.receiver.message_received(message)

    def _say_goodbye(self, close_message: tuple[int, str]) -> None:
        self._close_message = None
        peer = self._peer
        answer = peer._close_message or close_message  # both may close at once; otherwise the peer echoes
        peer._is_closing = True
        peer._close_message = None
        if peer.receiver is not None and not peer._is_closed:
            peer.receiver.transport_closing(*close_message)
        self._loop.call_soon(peer._end, *close_message, None)
        self._loop.call_soon(self._end, *answer, None)

    def _end(self, code: int | None, reason: str, error: BaseException | None) -> None:
        if self._is_closed:
            return
        self._is_closed = self._is_closing = True
        self._queue.clear()
        self._buffered = 0
        if self.receiver is not None:
            self.receiver.transport_closed(code, reason, error)


def memory_pair(loop: asyncio.AbstractEventLoop) -> tuple[MemoryTransport, MemoryTransport]:
    """Two ends, joined."""
    first, second = MemoryTransport(loop, "memory:1"), MemoryTransport(loop, "memory:2")
    first._peer, second._peer = second, first
    return first, second
