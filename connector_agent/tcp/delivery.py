"""One TCP connection on its way from the tunnel to its target.

Until the target is connected, what comes out of the tunnel waits, within the stream's credit; it is answered once the
target has taken the connection, or refused, and then another connector may have it: nothing of it was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector_agent.upstream.connect import connect
from shared.errors import BY_WIRE, FAULTS, Fault, LocalFault
from shared.tasks import spawn
from shared.tcp.head import ANSWER
from shared.tcp.plain import PlainEdge
from shared.tcp.proxy_v2 import encode
from shared.tcp.splice import Splice

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from connector_agent.tcp.target import TcpTarget
    from connector_agent.upstream.connect import Endpoint
    from shared.protocol import StreamEnd
    from shared.tcp.edge import Edge
    from shared.tcp.head import ConnectionHead

    Connect = Callable[[Endpoint, Callable[[], PlainEdge], asyncio.AbstractEventLoop], Awaitable[PlainEdge]]

_DEADLINE: Final = FAULTS["deadline-exceeded"]
_AWAY: Final = FAULTS["tunnel-refused"]
_UNREACHABLE: Final = FAULTS["target-unreachable"]
_RESET: Final = FAULTS["tunnel-lost"]


class TcpDelivery(Splice):
    """A connection under way. For the access line: the loop's times `began` and `connected_at` (0.0: never)."""

    __slots__ = ("_held", "_is_connecting", "_loop", "_on_over", "_task", "began", "connected_at", "detail", "head",
                 "target")  # fmt: skip

    IDLE = FAULTS["target-idle"]
    EDGE_LOST = FAULTS["target-reset"]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        time: Callable[[], float],
        stream: StreamEnd,
        head: ConnectionHead,
        target: TcpTarget,
        on_over: Callable[[TcpDelivery], None],
    ) -> None:
        super().__init__(loop, time, target.idle)
        self.head = head
        self.target = target
        self.began = self._progress
        self.connected_at = 0.0
        self.detail = ""
        self._loop = loop
        self._stream = stream
        self._held: list[bytes] = []
        self._is_connecting = True
        self._on_over = on_over
        self._task: asyncio.Task[None] | None = None
        target.deliveries.add(self)

    def start(self, body: bytes, end: bool, connector: Connect = connect) -> None:
        """Connect; `body` and `end` came with the head."""
        self.on_data(body, end)
        deadline = self._stream.deadline if self._stream is not None else 0.0
        self._timer.set(min(deadline or float("inf"), self.began + self.target.endpoint.timeout + 1.0))
        self._task = spawn(self._connect(connector), "tcp connect")

    async def _connect(self, connector: Connect) -> None:
        target = self.target
        target.metrics.connects += 1
        try:
            await connector(target.endpoint, self._make_edge, self._loop)
        except LocalFault as error:
            target.metrics.connect_failures += 1
            target.last_fault = error
            self.detail = error.detail
            if self._is_connecting:
                self.fail(error.fault, refused=True)
            else:  # too late by a moment: something has gone to the target
                self.fail(self.EDGE_LOST, refused=False)

    def _make_edge(self) -> PlainEdge:
        return PlainEdge(self)

    def on_gap(self) -> None:
        """The process was away, and the relay may have told the sender so: what waits must not be delivered late."""
        if self._is_connecting:
            self.detail = "the process was away"
            self.fail(_AWAY, refused=True)

    def on_made(self, edge: Edge) -> None:
        """See EdgeHandler: the target has taken the connection."""
        stream = self._stream
        if self.is_over or stream is None:
            edge.reset()
            return
        now = self._time()
        if stream.deadline and now >= stream.deadline:
            edge.reset()
            self.fail(_DEADLINE, refused=True)
            return
        self.edge = edge
        self.target.last_fault = None
        self._is_connecting = False
        self.connected_at = now
        self.watch()
        if self.target.tells_source:
            edge.write(encode(self.head.ends))
        held, self._held = self._held, []
        stream.answer(ANSWER)
        for data in held:
            self._pass_on(edge, stream, data)
        if self.has_stream_ended:
            edge.end()

    def on_data(self, data: bytes, end: bool) -> None:
        """See StreamHandler."""
        if not self._is_connecting:
            super().on_data(data, end)
            return
        if data:
            self._held.append(data)
        self.has_stream_ended = self.has_stream_ended or end

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler."""
        self._is_connecting = False
        super().on_reset(wire_code, refused)

    def fault_of(self, wire_code: int, refused: bool) -> Fault:
        """See Splice. A number that we do not know becomes no label: the relay could make up any."""
        return BY_WIRE.get(wire_code, _RESET)

    def settle(self) -> None:
        """See Splice."""
        self._held.clear()
        self._is_connecting = False
        if self._task is not None and self.edge is None:
            self._task.cancel()
        self.target.deliveries.discard(self)
        self._on_over(self)

    def _on_timer(self) -> None:
        if self._is_connecting:
            self.detail = "no connection in time"
            stream = self._stream
            is_late = stream is not None and stream.deadline and self._time() >= stream.deadline - 0.002
            self.fail(_DEADLINE if is_late else _UNREACHABLE, refused=True)
        else:
            super()._on_timer()
