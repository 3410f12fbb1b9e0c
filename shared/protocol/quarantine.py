"""Frames that came after a gap, held until it is sure that they are not old.

A process that was frozen finds in its socket buffer what the relay sent before it gave the connector up; the pushes in
there were answered long ago, with an error, and must not reach a target now. So after a gap the connector asks with a
PING, and holds what concerns streams until its PONG is back. By then everything that the relay had to say about the
held pushes has come too, so their resets count first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shared.protocol.frames import DATA, HEADER_SIZE, OPEN, RESET

MAX_HELD: Final = 48 * 1024 * 1024
"""Bytes that may be held: a whole tunnel's credit and the heads that go with it."""

DEAD_ON_ARRIVAL: Final = 0x100
"""Beyond the flags of the wire: an OPEN whose RESET has been seen already."""

HELD_KINDS: Final = frozenset({OPEN, DATA, RESET})


class HeldFrame(NamedTuple):
    """A frame's parts, as the connection takes them."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


class Quarantine:
    """Holds frames until the PONG to a PING of at least `until` (microseconds of our clock)."""

    __slots__ = ("_held", "size", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self._held: list[HeldFrame] = []
        self.size = 0
        """Bytes held; the connection counts them against the memory budget."""

    def __repr__(self) -> str:
        return f"<Quarantine {len(self._held)} frames, {self.size} bytes, until {self.until}>"

    def add(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bool:
        """Hold a frame; False when there are more than an honest peer can have sent."""
        self.size += len(payload)
        self._held.append(HeldFrame(kind, flags, stream_id, payload))
        return self.size + len(self._held) * HEADER_SIZE <= MAX_HELD

    def release(self) -> list[HeldFrame]:
        """The frames in the order in which they count: resets of what was open before, then all, stillborn pushes
        marked."""
        over = {frame.stream_id for frame in self._held if frame.kind == RESET}
        born_here = {frame.stream_id for frame in self._held if frame.kind == OPEN}
        first = [frame for frame in self._held if frame.kind == RESET and frame.stream_id not in born_here]
        rest = [
            frame._replace(flags=frame.flags | DEAD_ON_ARRIVAL)
            if frame.kind == OPEN and frame.stream_id in over
            else frame
            for frame in self._held
        ]
        return first + rest
