"""Pushes that wait for a connection to one target: in turn sender by sender, each sender's in the order they came."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from connector_agent.upstream.connection import UpstreamConnection
from shared.errors import LocalFault


class Waiter(Protocol):
    """A push that waits for a connection. It is called once, unless it cancels."""

    def on_connection(self, connection: UpstreamConnection) -> None:
        """Here is one; it must be used, or released."""

    def on_no_connection(self, fault: LocalFault) -> None:
        """There will be none."""


class WaitingLine:
    """Who waits, and until when. `size` is how many; it is asked for on every push."""

    __slots__ = ("_by_sender", "_senders", "size")

    def __init__(self) -> None:
        self._by_sender: OrderedDict[str, OrderedDict[Waiter, float]] = OrderedDict()
        self._senders: dict[Waiter, str] = {}
        self.size = 0

    def add(self, waiter: Waiter, sender: str, until: float) -> None:
        """Last among its sender's; a sender that is new here has its turn last."""
        self._by_sender.setdefault(sender, OrderedDict())[waiter] = until
        self._senders[waiter] = sender
        self.size += 1

    def next(self) -> Waiter:
        """Take the first push of the sender whose turn it is. LookupError if nobody waits."""
        sender, waiting = next(iter(self._by_sender.items()))
        waiter = next(iter(waiting))
        self._by_sender.move_to_end(sender)
        self.remove(waiter)
        return waiter

    def remove(self, waiter: Waiter) -> bool:
        """Take one out; whether it was there."""
        sender = self._senders.pop(waiter, None)
        if sender is None:
            return False
        waiting = self._by_sender[sender]
        del waiting[waiter]
        if not waiting:
            del self._by_sender[sender]
        self.size -= 1
        return True

    def all(self) -> list[tuple[Waiter, float]]:
        """Everybody, with the loop's time until which they wait."""
        return [pair for waiting in self._by_sender.values() for pair in waiting.items()]

    def __repr__(self) -> str:
        return f"<WaitingLine {self.size} of {len(self._by_sender)} senders>"
