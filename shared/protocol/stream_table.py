"""The streams of one tunnel, by what has become of them: waiting for their first frame, open, or lingering.

The memory budget iterates over a table to find the stream that has to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.protocol.stream import Stream


class StreamTable:
    """All streams that hold anything.

    `open` are those with an identifier; `waiting` (at the relay) were opened, but not one byte of them is in a message
    yet; `lingering` are over, but their last bytes were not consumed yet.
    """

    __slots__ = ("last_id", "lingering", "open", "waiting")

    def __init__(self) -> None:
        self.open: dict[int, Stream] = {}
        self.waiting: set[Stream] = set()
        self.lingering: set[Stream] = set()
        self.last_id = 0

    def __repr__(self) -> str:
        return f"<StreamTable open={len(self.open)} waiting={len(self.waiting)} lingering={len(self.lingering)}>"

    def __iter__(self) -> Iterator[Stream]:
        yield from self.open.values()
        yield from self.waiting
        yield from self.lingering

    @property
    def in_flight(self) -> int:
        """Streams whose push is not over."""
        return len(self.open) + len(self.waiting)

    def number(self, stream: Stream) -> None:
        """Give a waiting stream the next identifier."""
        self.last_id += 1
        stream.id = self.last_id
        self.waiting.discard(stream)
        self.open[stream.id] = stream

    def forget(self, stream: Stream) -> None:
        """Take a stream out, wherever it is."""
        if stream.id:
            self.open.pop(stream.id, None)
        else:
            self.waiting.discard(stream)
        if self.lingering:
            self.lingering.discard(stream)

    def empty(self) -> list[Stream]:
        """Take all streams out."""
        streams = list(self)
        self.open.clear()
        self.waiting.clear()
        self.lingering.clear()
        return streams
