"""One address: what comes there is judged as far as its sorting asks for, and handed on."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from cloud_relay.ports.acceptor import Acceptor
from cloud_relay.ports.arrival import Arrival
from cloud_relay.ports.networks import is_within
from cloud_relay.sources import source_key
from shared.errors import FAULTS, Fault
from shared.logs import get_logger, log_limited
from shared.tunnel.endings import let_reset

if TYPE_CHECKING:
    from cloud_relay.metrics import ListenerMetrics
    from cloud_relay.ports.sorting import Sorting
    from shared.tcp.head import Ends

MAX_ARRIVALS: Final = 4096
"""Connections that are looked at, at once: as many as the kernel holds before."""

MAX_ARRIVALS_PER_SOURCE: Final = 256
"""The same of one source; a trusted load balancer may have all."""

_PROXY_REFUSED: Final = FAULTS["proxy-refused"]
_log = get_logger("relay.ports")


class Port:
    """`sorting` may be replaced at any time: it counts for all connections that were not handed on yet."""

    __slots__ = ("_acceptor", "_arrivals", "_loop", "_per_source", "_sorting", "metrics")

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: ListenerMetrics, sorting: Sorting) -> None:
        self.metrics = metrics
        self._sorting = sorting
        self._loop = loop
        self._acceptor = Acceptor(loop, self._take)
        self._arrivals: dict[Arrival, str] = {}
        self._per_source: dict[str, int] = {}

    @property
    def sorting(self) -> Sorting:
        """The rules in force."""
        return self._sorting

    @sorting.setter
    def sorting(self, sorting: Sorting) -> None:
        self._sorting = sorting
        for arrival in list(self._arrivals):
            arrival.sort_by(sorting)

    async def bind(self, host: str | None, port: int) -> None:
        """See Acceptor."""
        await self._acceptor.bind(host, port)

    def start(self) -> None:
        """Accept from now on."""
        self._acceptor.start()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound: (host, port), the port never 0."""
        return self._acceptor.addresses

    def stop(self) -> None:
        """Close the port, and reset what was not handed on yet."""
        self._acceptor.stop()
        for arrival in list(self._arrivals):
            arrival.abort()

    def _take(self, sock: socket.socket, ends: Ends) -> None:
        sorting = self.sorting
        if sorting.proxy_from:
            if not is_within(ends.source, sorting.proxy_from):
                self._refused(ends, _PROXY_REFUSED, "")
                let_reset(sock)
                sock.close()
                return
        elif not sorting.looks and sorting.default is not None:
            sorting.default.take(sock, ends, None)
            return
        source = source_key(ends.source)
        held = self._per_source.get(source, 0)
        if len(self._arrivals) >= MAX_ARRIVALS or (held >= MAX_ARRIVALS_PER_SOURCE and not sorting.proxy_from):
            self.metrics.refused += 1
            let_reset(sock)
            sock.close()
            return
        self._per_source[source] = held + 1
        arrival = Arrival(self._loop, sock, ends, sorting, self._refused, self._left)
        self._arrivals[arrival] = source

    def _left(self, arrival: Arrival) -> None:
        source = self._arrivals.pop(arrival, None)
        if source is None:
            return
        left = self._per_source[source] - 1
        if left:
            self._per_source[source] = left
        else:
            del self._per_source[source]

    def _refused(self, ends: Ends, fault: Fault, detail: str) -> None:
        self.metrics.failed(fault)
        log_limited(
            _log, "warning", fault.code, "connection refused", code=fault.code, source=ends.source, detail=detail,
            listener=self.metrics.listener,
        )  # fmt: skip
