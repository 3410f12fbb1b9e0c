"""The relay's end of the opening handshake: TLS, then one HTTP request, then an Acceptor decides."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Final, NamedTuple, Protocol

from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MAX_MESSAGE, MessageReceiver
from shared.tunnel.websocket import (
    ENROLL_SUBPROTOCOL,
    HANDSHAKE_TIMEOUT,
    MAX_ENROLMENT,
    MAX_HEAD,
    SUBPROTOCOL,
    WebSocketTransport,
)

SILENT: Final = logging.getLogger("qanat.websockets")
SILENT.disabled = True
"""The library's logger: whatever it would say is said by us, with the peer's address."""


_LIMITS: Final = {SUBPROTOCOL: MAX_MESSAGE, ENROLL_SUBPROTOCOL: MAX_ENROLMENT}
"""The subprotocols, the preferred one first, and the bytes of their largest message."""


class UpgradeRequest(NamedTuple):
    """What a client shows. `chain` is DER, its own certificate first, as TLS verified it: dates and names it did not.

    `subprotocol` is empty where the client offered none of ours.
    """

    path: str
    chain: tuple[bytes, ...]
    peer: str
    subprotocol: str

    @property
    def certificate(self) -> bytes | None:
        """Its own certificate, None if it showed none."""
        return self.chain[0] if self.chain else None


class Acceptor(Protocol):
    """Decides about handshakes. All calls are synchronous; each connection ends in one call of `opened` or `failed`."""

    def decide(self, request: UpgradeRequest) -> bytes | None:
        """None to accept, or the whole HTTP response of a refusal."""

    def refuse(self, fault_code: str, detail: str) -> bytes:
        """The whole HTTP response for a handshake that is wrong in itself."""

    def opened(self, transport: ServerTransport) -> MessageReceiver:
        """The handshake is done; the returned receiver gets the messages."""

    def failed(self, transport: ServerTransport, error: BaseException | None) -> None:
        """The connection ended before the handshake was done."""


class ServerTransport(WebSocketTransport):
    """One connection that a client made."""

    __slots__ = ("_acceptor", "_head", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        buffers: ReadBuffers,
        acceptor: Acceptor,
        time_limit: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(loop, context, buffers, server_side=True)
        self._acceptor = acceptor
        self._head = b""
        self._timer = loop.call_later(time_limit, self.abort)

    def tls_established(self) -> None:
        """Nothing to do: the client speaks first."""

    def handshake_received(self, data: bytes) -> None:
        self._head += data
        if len(self._head) > MAX_HEAD:
            self._answer(self._acceptor.refuse("not-a-websocket", "request head too large"))
        elif b"\r\n\r\n" in self._head:
            head, self._head = self._head, b""
            self._decide(head)

    def handshake_lost(self, error: BaseException | None) -> None:
        self._timer.cancel()
        self._acceptor.failed(self, error)

    def _decide(self, head: bytes) -> None:
        offered = [Subprotocol(name) for name in _LIMITS]
        protocol = ServerProtocol(subprotocols=offered, max_size=MAX_MESSAGE, logger=SILENT)
        request = _parse_request(protocol, head)
        if request is None:
            self._answer(self._acceptor.refuse("not-a-websocket", "no valid HTTP request"))
            return
        response = protocol.accept(request)
        refusal = self._refusal_of(protocol, request)
        if refusal is not None:
            self._answer(refusal)
        else:
            self._open(response, _LIMITS[protocol.subprotocol or SUBPROTOCOL])

    def _refusal_of(self, protocol: ServerProtocol, request: Request) -> bytes | None:
        """What is no WebSocket first, the subprotocol last: a client without a certificate is told that above all."""
        error = protocol.handshake_exc
        if error is not None and not isinstance(error, NegotiationError):
            return self._acceptor.refuse("not-a-websocket", str(error))
        refusal = self._acceptor.decide(
            UpgradeRequest(request.path, self.peer_chain(), self.describe(), protocol.subprotocol or "")
        )
        if refusal is None and error is not None:
            return self._acceptor.refuse("wrong-subprotocol", str(error))
        return refusal

    def _open(self, response: Response, limit: int) -> None:
        self._timer.cancel()
        self.write_plain(response.serialize())
        self.open_messages(self._acceptor.opened(self), limit)

    def _answer(self, response: bytes) -> None:
        self.write_plain(response)
        self.finish_writing()


def _parse_request(protocol: ServerProtocol, head: bytes) -> Request | None:
    if not head.endswith(b"\r\n\r\n") or head.count(b"\r\n\r\n") != 1:  # something follows: no client of ours does that
        return None
    protocol.receive_data(head)
    events = protocol.events_received()
    return events[0] if len(events) == 1 and isinstance(events[0], Request) else None
