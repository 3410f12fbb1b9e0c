"""Which connections may begin their handshake: so many at once, so many of one source, in turn among the networks that
they come from, and within a network among its sources.

A handshake costs about 1.5 ms of CPU. When hundreds of connectors come back at once, those beyond the limit wait here
without any TLS state; a source that floods only waits behind itself, a network with many sources likewise. When nothing
more can wait, the network that has most of what does loses what came last.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from cloud_relay.sources import network_of
from cloud_relay.turns import Turns
from shared.logs import get_logger

WAITING_PER_SLOT: Final = 8
"""Connections that may wait, for each that may be in its handshake."""

log = get_logger("relay.tunnels")


class Arrival:
    """A connection that has not begun. `start` begins it; `drop` comes instead when nothing more can wait.

    A `start` that raises has not begun: it is dropped too.
    """

    __slots__ = ("drop", "source", "start")

    def __init__(self, source: str, start: Callable[[], None], drop: Callable[[], None]) -> None:
        self.source = source
        self.start = start
        self.drop = drop


class HandshakeGate:
    """Counts handshakes in progress. Each that was started must be told to `leave` once."""

    def __init__(self, limit: int, per_source: int) -> None:
        self.limit = limit
        self.per_source = per_source
        self.dropped = 0
        self._in_progress: dict[Hashable, int] = {}
        self._total = 0
        self._waiting: Turns[Arrival] = Turns(2)
        self._is_starting = False

    def __repr__(self) -> str:
        return f"<HandshakeGate {self._total} in progress, {len(self._waiting)} waiting, {self.dropped} dropped>"

    @property
    def in_progress(self) -> int:
        """Handshakes that began and have not ended."""
        return self._total

    def enter(self, arrival: Arrival) -> None:
        """Start it now, or later, or drop it."""
        if self._total < self.limit and self._in_progress.get(arrival.source, 0) < self.per_source:
            self._start(arrival)
            return
        self._waiting.add(arrival, network_of(arrival.source), arrival.source)
        if len(self._waiting) > self.limit * WAITING_PER_SLOT:
            self.dropped += 1
            self._waiting.drop().drop()

    def leave(self, source: str) -> None:
        """A handshake that was started has ended, however it did."""
        self._total -= 1
        left = self._in_progress[source] - 1
        if left:
            self._in_progress[source] = left
        else:
            del self._in_progress[source]
        self._start_waiting()

    def drop_waiting(self) -> None:
        """Nothing that waits will be started any more."""
        waiting, self._waiting = self._waiting, Turns(2)
        for arrival in waiting:
            arrival.drop()

    def _start_waiting(self) -> None:
        if self._is_starting:  # one that was just started has left already: the loop below goes on
            return
        self._is_starting = True
        try:
            while (arrival := self._next()) is not None:
                self._start(arrival)
        finally:
            self._is_starting = False

    def _next(self) -> Arrival | None:
        if self._total >= self.limit:
            return None
        return self._waiting.next(self._may_begin)

    def _may_begin(self, source: Hashable) -> bool:
        return self._in_progress.get(source, 0) < self.per_source

    def _start(self, arrival: Arrival) -> None:
        self._total += 1
        self._in_progress[arrival.source] = self._in_progress.get(arrival.source, 0) + 1
        try:
            arrival.start()
        except Exception as error:  # neither the place nor those who wait behind it may be lost
            log.error("a handshake could not begin, by a bug of ours", exc_info=error)
            arrival.drop()
            self.leave(arrival.source)
