"""One address: what comes there is judged as far as its sorting asks for, and handed on."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from cloud_relay.ports.acceptor import AT_ONCE, Acceptor
from cloud_relay.ports.arrival import Arrival
from cloud_relay.ports.crowd import Crowd
from cloud_relay.ports.networks import is_within
from cloud_relay.sources import network_of, source_key
from shared.errors import FAULTS, Fault
from shared.logs import get_logger, log_limited
from shared.tunnel.endings import let_reset

if TYPE_CHECKING:
    from cloud_relay.metrics import ListenerMetrics
    from cloud_relay.ports.sorting import Sorting
    from shared.listeners import Inherited
    from shared.tcp.head import Ends

MAX_ARRIVALS: Final = 4096
"""Connections that are looked at, at once: as many as the kernel holds before."""

MAX_ARRIVALS_PER_SOURCE: Final = 256
"""The same of one source: the one that the PROXY header names, where there is one."""

MAX_UNTOLD_PER_BALANCER: Final = 1024
"""Of those that a load balancer has brought and not yet said of whom they are."""

_BALANCER: Final = "balancer "
"""What goes before a source's name where it is a load balancer: what it has brought is not its own."""

_PROXY_REFUSED: Final = FAULTS["proxy-refused"]
_log = get_logger("relay.ports")


class Port:
    """`sorting` may be replaced at any time: it counts for all connections that were not handed on yet."""

    __slots__ = ("_acceptor", "_crowd", "_loop", "_sorting", "metrics")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, metrics: ListenerMetrics, sorting: Sorting, at_once: int = AT_ONCE
    ) -> None:
        """`at_once`: connections that are accepted in one turn of the loop."""
        self.metrics = metrics
        self._sorting = sorting
        self._loop = loop
        self._acceptor = Acceptor(loop, self._take, at_once)
        self._crowd: Crowd[Arrival] = Crowd(MAX_ARRIVALS, _group_of)

    @property
    def sorting(self) -> Sorting:
        """The rules in force."""
        return self._sorting

    @sorting.setter
    def sorting(self, sorting: Sorting) -> None:
        self._sorting = sorting
        for arrival in self._crowd.everybody():
            arrival.sort_by(sorting)

    async def bind(self, host: str | None, port: int, inherited: Inherited | None = None, name: str = "") -> None:
        """See Acceptor."""
        await self._acceptor.bind(host, port, inherited, name)

    def start(self) -> None:
        """Accept from now on."""
        self._acceptor.start()

    def pause(self) -> None:
        """Accept no more, until `start`: what has arrived goes its way, and the port stays open."""
        self._acceptor.pause()

    @property
    def arrivals(self) -> int:
        """Connections that are still looked at."""
        return len(self._crowd)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What listens. Not the caller's own."""
        return self._acceptor.sockets

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it is bound: (host, port), the port never 0."""
        return self._acceptor.addresses

    def stop(self) -> None:
        """Close the port, and reset what was not handed on yet."""
        self._acceptor.stop()
        for arrival in self._crowd.everybody():
            arrival.abort()

    # --- what arrivals call

    def told(self, arrival: Arrival, ends: Ends) -> None:
        """The PROXY header says whose connection it is."""
        self._crowd.move(arrival, source_key(ends.source), MAX_ARRIVALS_PER_SOURCE)

    def pushed_out(self) -> None:
        """One had to make way for others."""
        self.metrics.refused += 1

    def left(self, arrival: Arrival) -> None:
        """It was handed on, or is closed."""
        self._crowd.leave(arrival)

    def refused(self, ends: Ends, fault: Fault, detail: str) -> None:
        """It had to be refused: `detail` is for the log."""
        self.metrics.failed(fault)
        log_limited(
            _log, "warning", fault.code, "connection refused", code=fault.code, source=ends.source, detail=detail,
            listener=self.metrics.listener,
        )  # fmt: skip

    # --- within

    def _take(self, sock: socket.socket, ends: Ends) -> None:
        sorting = self.sorting
        if sorting.proxy_from:
            if not is_within(ends.source, sorting.proxy_from):
                self.refused(ends, _PROXY_REFUSED, "")
                let_reset(sock)
                sock.close()
                return
        elif not sorting.looks and sorting.default is not None:
            sorting.default.take(sock, ends, None)
            return
        source, arrival = source_key(ends.source), Arrival(self._loop, sock, ends, sorting, self)
        if sorting.proxy_from:
            self._crowd.join(arrival, _BALANCER + source, MAX_UNTOLD_PER_BALANCER)
        else:
            self._crowd.join(arrival, source, MAX_ARRIVALS_PER_SOURCE)


def _group_of(key: str) -> str:
    return key if key.startswith(_BALANCER) else network_of(key)
