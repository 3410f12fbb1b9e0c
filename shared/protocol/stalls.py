"""How often, and for how long, what is ready to be sent waits for the peer's credit.

A *stream* waits when its reader at the other end is slow: a target, or a sender that reads its answer. The *tunnel*
waits when as much is on the path as the path takes: the line is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.protocol.stream import Stream


class StallCounts:
    """What is counted, of one tunnel or of several that share it: stalls that have ended, and their seconds.

    `stream_seconds` adds up what every stream waited; several may wait at once.
    """

    __slots__ = ("stream_seconds", "streams", "tunnel_seconds", "tunnels")

    def __init__(self) -> None:
        self.streams = 0
        self.stream_seconds = 0.0
        self.tunnels = 0
        self.tunnel_seconds = 0.0


class StallWatch:
    """Who waits for credit in one tunnel, and since when. Nothing here is called unless somebody does.

    `now` is the time of the last message made or of the credit that has come: whoever keeps it says so.
    """

    __slots__ = ("_starved_at", "counts", "now", "waiting")

    def __init__(self, now: float = 0.0) -> None:
        self.counts = StallCounts()
        self.now = now
        self.waiting: dict[Stream, float] = {}
        """Streams without credit, and since when."""
        self._starved_at = -1.0

    def __repr__(self) -> str:
        return f"<StallWatch {len(self.waiting)} waiting{', starved' if self._starved_at >= 0 else ''}>"

    def wait(self, stream: Stream) -> None:
        """It has bytes and no credit of its own."""
        if stream not in self.waiting:
            self.waiting[stream] = self.now

    def go_on(self, stream: Stream) -> None:
        """It has credit again, or is over."""
        since = self.waiting.pop(stream, -1.0)
        if since >= 0:
            self.counts.streams += 1
            self.counts.stream_seconds += self.now - since

    def starve(self) -> None:
        """Some stream waits for the tunnel's credit."""
        if self._starved_at < 0:
            self._starved_at = self.now

    def feed(self) -> None:
        """The tunnel has credit again."""
        if self._starved_at >= 0:
            self.counts.tunnels += 1
            self.counts.tunnel_seconds += self.now - self._starved_at
            self._starved_at = -1.0

    def end(self) -> None:
        """The tunnel is over."""
        for stream in list(self.waiting):
            self.go_on(stream)
        self.feed()
