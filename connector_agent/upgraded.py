"""A delivery whose target has agreed to speak WebSocket: from its 101 on a stream of bytes both ways.

The connection is never pooled again. It ends when both directions have, when either side is cut off, when nothing moves
for the target's `timeouts.idle`, and when the target is removed or would not be given such a push any more. Once the
target has ended its direction, it is no fault however the sender's ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector_agent.headers_policy import relocate
from shared.errors import BY_WIRE
from shared.http.headers import prepare_answer_headers
from shared.http.push_head import encode_answer
from shared.tunnel.duplex import Duplex, EdgeRules

if TYPE_CHECKING:
    import asyncio

    from connector_agent.delivery import Delivery
    from connector_agent.upstream.connection import UpstreamConnection
    from shared.http.responses import ResponseHead
    from shared.protocol import StreamEnd

_LOST: Final = "target-lost"
_IDLE: Final = "target-too-slow"
_SENDER_GONE: Final = "sender-gone"


class UpgradedDelivery:
    """The owner of one upgraded connection; a `DuplexOwner`."""

    __slots__ = ("_connection", "_delivery", "_duplex", "_stream")

    def __init__(self, delivery: Delivery, connection: UpstreamConnection, stream: StreamEnd) -> None:
        self._delivery = delivery
        self._connection = connection
        self._stream = stream
        self._duplex: Duplex | None = None

    def __repr__(self) -> str:
        return f"<UpgradedDelivery {self._delivery.push.request_id} {self._duplex!r}>"

    def start(self, head: ResponseHead, first: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the target's 101 back, and what it said behind it."""
        delivery, connection, stream = self._delivery, self._connection, self._stream
        target = delivery.target
        transport = connection.hand_over()
        rules = EdgeRules(target.timeouts.idle, _LOST, _IDLE)
        duplex = self._duplex = Duplex(self, transport, stream, rules, loop, delivery.now)
        transport.set_protocol(duplex)
        stream.handler = duplex
        headers = prepare_answer_headers(head.headers)
        if b"location" in head.fields:
            headers = relocate(headers, target.url, target.headers.host_of(delivery.push.headers))
        stream.answer(encode_answer(101, None, headers))
        duplex.start(first, b"", end=False, is_blocked=connection.is_paused)

    def end(self, code: str) -> None:
        """Cut it off, for this reason."""
        if self._duplex is not None:
            self._duplex.abort(code)

    # DuplexOwner

    def code_of(self, wire_code: int, refused: bool) -> str:
        """See DuplexOwner. A number that we do not know becomes no label of a metric: the relay could make up any."""
        fault = BY_WIRE.get(wire_code)
        return fault.code if fault is not None else "reset"

    def on_over(self, code: str) -> None:
        """See DuplexOwner."""
        duplex = self._duplex
        if duplex is None:
            return
        if code == _SENDER_GONE and duplex.edge_ended:
            code = ""
        self._delivery.end_upgraded(code, received=duplex.bytes_out, sent=duplex.bytes_in)

    def on_gone(self, error: Exception | None) -> None:
        """See DuplexOwner."""
        self._connection.connection_lost(error)
