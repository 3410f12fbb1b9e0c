"""The way of one push to a tunnel that another worker has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cloud_relay.workers.crossing import address

if TYPE_CHECKING:
    from cloud_relay.session import Key
    from shared.protocol import StreamEnd, StreamHandler
    from shared.tunnel.link import Link


class HopIdentity(NamedTuple):
    """Whose tunnel a push will be given, where that is known: there may be several connectors at the other worker."""

    connector: str


class HopLink:
    """The way to a key at a sibling, for one push."""

    __slots__ = ("_avoid", "_key", "_link")

    def __init__(self, link: Link, key: Key, avoid: Sequence[str]) -> None:
        self._link = link
        self._key = key
        self._avoid = avoid

    @property
    def is_open(self) -> bool:
        """Whether the sibling is there. Of its tunnels this says nothing."""
        return self._link.is_open

    @property
    def is_draining(self) -> bool:
        """See Link."""
        return self._link.is_draining

    def open_stream(
        self, handler: StreamHandler, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> StreamEnd:
        """See Link."""
        return self._link.open_stream(handler, address(self._key, self._avoid, head), body, end, deadline)


class Hop(NamedTuple):
    """What a push takes for a session where its connector's tunnel is at a sibling. `worker` is its number."""

    identity: HopIdentity
    link: HopLink
    worker: int
