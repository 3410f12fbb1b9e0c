"""A session at another worker, as this one sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_relay.identity.records import ConnectorKey
    from cloud_relay.workers.sibling import Sibling


class Rival:
    """A session at a sibling, as far as a contest needs it. `last_received` is the loop's time, which all processes of
    a host share."""

    __slots__ = ("_sibling", "connector", "fingerprint", "instance", "last_received", "number", "since")

    def __init__(
        self,
        sibling: Sibling,
        number: int,
        connector: ConnectorKey,
        instance: str,
        fingerprint: str = "",
        since: float = 0.0,
    ) -> None:
        self._sibling = sibling
        self.number = number
        self.connector = connector
        self.instance = instance
        self.fingerprint = fingerprint
        self.since = since
        self.last_received = 0.0

    def __repr__(self) -> str:
        return f"<Rival {self.number} of {'/'.join(self.connector)} at {self._sibling!r}>"

    @property
    def seniority(self) -> tuple[float, int, int]:
        """When it came, its worker, its number there: see `attendance.Seniority`."""
        return self.since, self._sibling.number, self.number

    def describe(self) -> str:
        """Where it is, for our own log."""
        return f"worker {self._sibling.number}"

    def ping(self) -> None:
        """Have it asked for a sign of life; `last_received` tells."""
        self._sibling.tell({"ping": self.number})

    def replace(self) -> None:
        """Have it closed: another instance has taken its place."""
        self._sibling.rivals.pop(self.number, None)
        self._sibling.tell({"replace": self.number})
