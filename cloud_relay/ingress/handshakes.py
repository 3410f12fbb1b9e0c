"""When the TLS handshakes of new connections begin: one in a turn of the loop, in turn among their sources.

A handshake is by far the dearest thing that a stranger can ask for: 0.2 ms in one piece, 0.4 ms in all. Hundreds at
once would keep the loop from all pushes for tenths of a second, and more of them than the core can take for good. So a
connection waits, without any TLS state, until its ClientHello is here and its turn has come; between two turns
everything else that is ready is served. Where nothing else is, the turns follow each other at once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[[], object]) -> object: ...


class HandshakeTurns:
    """One for all listeners of a loop. Each `begin` is called once; one that has been given up does nothing then."""

    __slots__ = ("_is_due", "_loop", "_waiting")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[str, deque[Callable[[], object]]] = OrderedDict()
        self._is_due = False

    def join(self, source: str, begin: Callable[[], object]) -> None:
        """Begin in the next turn that is free for `source`, as `source_key` names it."""
        self._waiting.setdefault(source, deque()).append(begin)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        source, waiting = next(iter(self._waiting.items()))
        begin = waiting.popleft()
        if waiting:
            self._waiting.move_to_end(source)
        else:
            del self._waiting[source]
        self._is_due = bool(self._waiting)
        if self._is_due:
            self._loop.call_soon(self._turn)
        begin()

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<HandshakeTurns {waiting} of {len(self._waiting)} sources waiting>"
