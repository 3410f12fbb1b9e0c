"""When the TLS handshakes of new connections begin: one in a turn of the loop, in turn among the networks that they
come from, and within a network among its sources.

A handshake is by far the dearest thing that a stranger can ask for: 0.2 ms in one piece, 0.4 ms in all. Hundreds at
once would keep the loop from all pushes for tenths of a second, and more of them than the core can take for good. So a
connection waits, without any TLS state, until its ClientHello is here and its turn has come; between two turns
everything else that is ready is served. Where nothing else is, the turns follow each other at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cloud_relay.loop_turns import LoopTurns

if TYPE_CHECKING:
    import socket


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[[], object]) -> object: ...
    def add_reader(self, sock: socket.socket, callback: Callable[[], object]) -> object: ...
    def remove_reader(self, sock: socket.socket) -> object: ...


class Knock:
    """One socket of which nothing has been read: `begin` is called when its first bytes are here and its turn has come.

    The socket stays the caller's.
    """

    __slots__ = ("_begin", "_loop", "_sock", "_source", "_turns", "has_heard", "wants_turn")

    def __init__(
        self, loop: Loop, turns: HandshakeTurns, sock: socket.socket, source: str, begin: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._turns = turns
        self._sock = sock
        self._source = source
        self._begin = begin
        self.has_heard = False
        """Whether first bytes are here: it is not the sender who has others wait."""
        self.wants_turn = True
        loop.add_reader(sock, self._on_hello)

    def give_up(self) -> None:
        """Wait no longer: `begin` is not called any more."""
        self.wants_turn = False
        self._loop.remove_reader(self._sock)

    def _on_hello(self) -> None:
        self.has_heard = True
        self._loop.remove_reader(self._sock)
        self._turns.join(self._source, self)

    def take_turn(self) -> None:
        """See Waiter."""
        self._begin()


class HandshakeTurns(LoopTurns):
    """One for all listeners of a loop."""

    __slots__ = ()
