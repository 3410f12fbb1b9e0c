"""Work that strangers can ask for, a little in each turn of the loop: in turn among the networks that it comes from,
and within a network among its sources. Between two turns everything else that is ready is served; where nothing else
is, the turns follow each other at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cloud_relay.sources import network_of
from cloud_relay.turns import Turns


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[[], object]) -> object: ...


class LoopTurns:
    """`at_once` pieces of work are begun in one turn. Each `begin` is called once; one that has been given up does
    nothing then, and none may raise."""

    __slots__ = ("_at_once", "_is_due", "_loop", "_waiting")

    def __init__(self, loop: Loop, at_once: int = 1) -> None:
        self._loop = loop
        self._at_once = at_once
        self._waiting: Turns[Callable[[], object]] = Turns(2)
        self._is_due = False

    def join(self, source: str, begin: Callable[[], object]) -> None:
        """Begin in the next turn that is free for `source`, as `source_key` names it."""
        self._waiting.add(begin, network_of(source), source)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = [self._waiting.next() for _ in range(min(self._at_once, len(self._waiting)))]
        self._is_due = len(self._waiting) > 0
        if self._is_due:
            self._loop.call_soon(self._turn)
        for begin in now:
            if begin is not None:
                begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._waiting!r}>"
