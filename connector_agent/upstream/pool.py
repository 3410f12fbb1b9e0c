"""The connections of one target, and the pushes that wait for one.

Last in, first out: the connection that was used last is the likeliest to be alive, and those that are not needed grow
old and are closed. A pool is never shared across targets, so that no push can get to a target that was not asked about.
Everything is bounded: connections, connects under way, pushes that wait and how long they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from connector_agent.upstream.attempt import attempt
from connector_agent.upstream.connect import Endpoint, connect
from connector_agent.upstream.connection import UpstreamConnection
from connector_agent.upstream.line import Waiter, WaitingLine
from shared.errors import LocalFault
from shared.tasks import spawn
from shared.timers import LazyTimer

MAX_IDLE: Final = 4.0
"""Seconds after which an idle connection is not trusted with a push: common servers close theirs after 5."""

KEEP_ALIVE_SHARE: Final = 0.75
"""Of a target's own `Keep-Alive: timeout`; the rest is for the way and for its clock."""

MAX_CONNECTING: Final = 16
"""Connects under way at once. In a burst most pushes are served by connections that others give back meanwhile."""

MAX_WAITING: Final = 8192
"""Pushes that wait for a connection to one target."""

MAX_WAIT: Final = 5.0
"""Seconds that a push waits for a connection: after 5 seconds its sender has given up."""

_SWEEP_STEP: Final = 0.05

Connect = Callable[
    [Endpoint, Callable[[], UpstreamConnection], asyncio.AbstractEventLoop], Coroutine[Any, Any, UpstreamConnection]
]


class ConnectCounts(Protocol):
    """Where connects are counted."""

    connects: int
    connect_failures: int


class UpstreamPool:
    """All connections to one target. `last_fault` is why the last connect failed, None if it did not."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        *,
        max_connections: int = 64,
        max_connecting: int = MAX_CONNECTING,
        max_waiting: int = MAX_WAITING,
        counts: ConnectCounts,
        on_fault: Callable[[LocalFault], None] = lambda fault: None,
        connector: Connect = connect,
    ) -> None:
        self.endpoint = endpoint
        self.max_connections = max_connections
        self._max_connecting = max_connecting
        self._max_waiting = max_waiting
        self.last_fault: LocalFault | None = None
        self.loop = loop
        self._connector = connector
        self._counts = counts
        self._on_fault = on_fault
        self._all: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting = WaitingLine()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle_timer = LazyTimer(loop, self._close_stale)
        self._wait_timer = LazyTimer(loop, self._fail_expired)
        self._grace: asyncio.TimerHandle | None = None
        self._is_serving = False
        self._is_retired = False
        self._is_over = False

    # What a delivery calls.

    def take(self, now: float) -> UpstreamConnection | None:
        """The idle connection that was used last, if it is fresh enough."""
        idle = self._idle
        if not idle:
            return None
        connection = idle.pop()
        if now - connection.idle_since < connection.idle_limit:
            return connection
        # All others are older still.
        idle.append(connection)
        self._close_stale()
        return idle.pop() if idle else None

    def wait(self, waiter: Waiter, deadline: float, sender: str = "") -> LocalFault | None:
        """Queue for a connection until `deadline` (0.0: none) or MAX_WAIT; a fault says that there will be none.

        Connections go to the senders in turn, so that one that floods waits behind itself.
        """
        if self._is_over:
            return _removed()
        if self._waiting.size >= self._max_waiting:
            return LocalFault("connector-overloaded", f"{self._waiting.size} pushes wait for a connection")
        until = self.loop.time() + MAX_WAIT
        if deadline and deadline < until:
            until = deadline
        self._waiting.add(waiter, sender, until)
        if not self._wait_timer.is_set or until < self._wait_timer.deadline:
            self._wait_timer.set(until)
        self._connect_more()
        return None

    def cancel(self, waiter: Waiter) -> None:
        """Stop waiting."""
        self._waiting.remove(waiter)
        if not self._waiting.size:
            self._wait_timer.close()

    # What a connection calls.

    def put_back(self, connection: UpstreamConnection) -> None:
        """It can serve another push, if its target did not announce its end for now (`Keep-Alive: timeout=0`)."""
        if connection.idle_limit <= 0.0:
            connection.close()
            return
        connection.idle_since = now = self.loop.time()
        self._idle.append(connection)
        if self._waiting.size:
            self._serve()
        elif self._is_retired:
            connection.close()
        elif not self._idle_timer.is_set:
            self._idle_timer.set(now + connection.idle_limit)

    def forget(self, connection: UpstreamConnection) -> None:
        """It is closed, or about to be."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._idle:
            self._idle_timer.close()
        if self._waiting.size:
            self._connect_more()
        elif self._grace is not None and not (self._all or self._tasks):
            self._grace.cancel()
            self._grace = None

    # What an attempt calls.

    def begin(self) -> Coroutine[Any, Any, UpstreamConnection]:
        """It connects now."""
        self._counts.connects += 1
        return self._connector(self.endpoint, self._new_connection, self.loop)

    def connected(self, connection: UpstreamConnection, began: float) -> None:
        """It has a connection, for a push that waits or for later."""
        self._leave()
        self.last_fault = None
        if connection.is_closed:
            # It was lost in the tick in which it came: to the pushes the same as none.
            self._fail(LocalFault("target-unreachable", f"{self.endpoint}: closed at once"), began)
            return
        self._all.add(connection)
        self.put_back(connection)
        if self._waiting.size:  # the target is slow: nobody may give a connection back soon
            self._connect_more()

    def failed(self, fault: LocalFault, began: float) -> None:
        """It has none."""
        self._leave()
        self._fail(fault, began)

    # What the target calls.

    def retire(self, grace: float | None = None) -> None:
        """Serve no new pushes. Those in flight end as they would; with `grace`, after so many seconds at the latest."""
        self._is_retired = True
        for connection in tuple(self._idle):
            connection.close()
        if grace is not None and (self._all or self._waiting.size or self._tasks):
            self._grace = self.loop.call_later(grace, self.abort)

    def abort(self) -> None:
        """End everything at once; the pushes are told so, and nothing is connected any more."""
        self._is_retired = self._is_over = True
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        for task in self._tasks:
            task.cancel()
        while self._waiting.size:
            self._waiting.next().on_no_connection(_removed())
        self._wait_timer.close()
        for connection in tuple(self._all):
            connection.drop("the target was removed from the config")

    @property
    def total(self) -> int:
        """Connections, busy and idle."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """Connections that no push holds."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Pushes that wait for a connection."""
        return self._waiting.size

    def _serve(self) -> None:
        """Hand idle connections to waiting pushes. A push that gives one back at once must not recurse into here."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._waiting.size and self._idle:
                self._waiting.next().on_connection(self._idle.pop())
        finally:
            self._is_serving = False
        if not self._waiting.size:
            self._wait_timer.close()
            if self._is_retired:
                self.retire()

    def _connect_more(self) -> None:
        if self._is_over:
            return
        under_way = len(self._tasks)
        wanted = min(self._waiting.size, self._max_connecting, self.max_connections - len(self._all))
        for _ in range(wanted - under_way):
            task = spawn(attempt(self), name=f"connect to {self.endpoint}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _leave(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.discard(task)

    def _new_connection(self) -> UpstreamConnection:
        connection = UpstreamConnection(self, self.loop)
        connection.idle_limit = MAX_IDLE
        return connection

    def _fail(self, fault: LocalFault, began: float) -> None:
        """A connect failed. A busy connection may yet serve the rest; without one, nobody need wait longer."""
        self._counts.connect_failures += 1
        self.last_fault = fault
        self._on_fault(fault)
        failed = [waiter for waiter, until in self._waiting.all() if until - MAX_WAIT <= began]
        if self._all:
            del failed[1:]
        for waiter in failed:
            if self._waiting.remove(waiter):
                waiter.on_no_connection(fault)
        if self._waiting.size:
            self._connect_more()
        else:
            self._wait_timer.close()

    def _close_stale(self) -> None:
        now = self.loop.time()
        for connection in tuple(self._idle):
            if now - connection.idle_since >= connection.idle_limit:
                connection.close()
        if self._idle:
            self._idle_timer.set(min(one.idle_since + one.idle_limit for one in self._idle) + _SWEEP_STEP)

    def _fail_expired(self) -> None:
        now = self.loop.time()
        expired = [waiter for waiter, until in self._waiting.all() if until <= now]
        for waiter in expired:
            if self._waiting.remove(waiter):
                waiter.on_no_connection(LocalFault("connector-overloaded", "no connection became free in time"))
        if self._waiting.size:
            self._wait_timer.set(max(min(until for _, until in self._waiting.all()), now + _SWEEP_STEP))

    def __repr__(self) -> str:
        return f"<UpstreamPool {self.total} connections, {self.idle} idle, {self.waiting} waiting>"


def _removed() -> LocalFault:
    return LocalFault("unknown-target", "the target was removed from the config")
