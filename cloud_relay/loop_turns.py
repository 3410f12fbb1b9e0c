"""Work that strangers can ask for, a little in each turn of the loop: in turn among the networks that it comes from,
and within a network among its sources. Between two turns everything else that is ready is served; where nothing else
is, the turns follow each other at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cloud_relay.sources import network_of
from cloud_relay.turns import Turns

PASSED_BY: Final = 256
"""Of those that have given up, so many are passed by in one turn: more than can have come in it. Or else they would
pile up behind each other when more come and give up than turns come round."""


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[[], object]) -> object: ...


class Waiter(Protocol):
    """Who waits for a turn."""

    @property
    def wants_turn(self) -> bool:
        """False once it has given up."""
        ...

    def take_turn(self) -> None:
        """The turn has come. It may not raise."""
        ...


class LoopTurns:
    """`at_once` of those that wait have their turn in one of the loop's, each once. Who has given up takes nobody's."""

    __slots__ = ("_at_once", "_is_due", "_loop", "_waiting")

    def __init__(self, loop: Loop, at_once: int = 1) -> None:
        self._loop = loop
        self._at_once = at_once
        self._waiting: Turns[Waiter] = Turns(2)
        self._is_due = False

    def join(self, source: str, waiter: Waiter) -> None:
        """Wait for a turn that is free for `source`, as `source_key` names it; it comes from the loop."""
        self._waiting.add(waiter, network_of(source), source)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = self._next()
        self._is_due = len(self._waiting) > 0
        if self._is_due:
            self._loop.call_soon(self._turn)
        for waiter in now:
            if waiter.wants_turn:  # another's turn may have ended it
                waiter.take_turn()

    def _next(self) -> list[Waiter]:
        found: list[Waiter] = []
        for _ in range(PASSED_BY):
            waiter = self._waiting.next()
            if waiter is None:
                break
            if waiter.wants_turn:
                found.append(waiter)
                if len(found) == self._at_once:
                    break
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._waiting!r}>"
