"""The connector's end of the opening handshake: TLS over a connected transport, then an HTTP request and its answer."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MAX_MESSAGE, MessageReceiver
from shared.tunnel.websocket import HANDSHAKE_TIMEOUT, MAX_HEAD, SUBPROTOCOL, WebSocketTransport
from shared.tunnel.websocket_server import SILENT

_CONTENT_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength:[ \t]*([0-9]{1,6})[ \t]*\r\n")


class HandshakeError(Exception):
    """The opening handshake failed.

    HandshakeError
    ├── TlsFailed          in TLS; `error` is OpenSSL's
    ├── PeerRejected       by `check_peer`, after TLS found nothing wrong
    ├── HandshakeRefused   by an HTTP status
    └── BadHandshake       the answer was none, or not a WebSocket's
    """


class TlsFailed(HandshakeError):
    """OpenSSL refused the peer, or the peer refused us by an alert (in TLS 1.3 that may come after our handshake)."""

    def __init__(self, error: ssl.SSLError | ValueError) -> None:
        self.error = error
        super().__init__(str(error))


class PeerRejected(HandshakeError):
    """TLS is content with the peer, we are not: nothing was sent but our certificate."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class HandshakeRefused(HandshakeError):
    """An HTTP answer other than 101. Everything in it was chosen by the peer: bounded, but not validated."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"HTTP {status}")


class BadHandshake(HandshakeError):
    """The peer does not speak our WebSocket, or ended the connection before it answered (`has_ended`)."""

    def __init__(self, detail: str, *, has_ended: bool = False) -> None:
        self.has_ended = has_ended
        super().__init__(detail)


CheckPeer = Callable[[bytes | None], PeerRejected | None]
"""Takes the peer's certificate in DER, once TLS has verified it, and says what else is wrong with it."""


def _content(_certificate: bytes | None) -> PeerRejected | None:
    return None


class Endpoint(NamedTuple):
    """Where the client means to be: the name that the certificate must hold, port and path of the WebSocket.

    `protocol` is offered by ALPN: it says which of the relay's processes is meant (`worker_protocol`).
    """

    host: str
    port: int
    path: str = "/"
    subprotocol: str = SUBPROTOCOL
    protocol: str | None = None


class ClientTransport(WebSocketTransport):
    """One connection to a relay; made by `open_websocket`."""

    __slots__ = ("_check_peer", "_head", "_open_receiver", "_protocol", "_subprotocol", "opened")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        buffers: ReadBuffers,
        endpoint: Endpoint,
        open_receiver: Callable[[ClientTransport], MessageReceiver],
        check_peer: CheckPeer = _content,
    ) -> None:
        super().__init__(
            loop, context, buffers, server_side=False, server_hostname=endpoint.host, protocol=endpoint.protocol
        )
        uri = WebSocketURI(secure=True, host=endpoint.host, port=endpoint.port, path=endpoint.path, query="")
        self._protocol: ClientProtocol | None = ClientProtocol(
            uri, subprotocols=[Subprotocol(endpoint.subprotocol)], max_size=MAX_MESSAGE, logger=SILENT
        )
        self._subprotocol = endpoint.subprotocol
        self._check_peer = check_peer
        self._head = b""
        self._open_receiver = open_receiver
        self.opened: asyncio.Future[None] = loop.create_future()

    def tls_established(self) -> None:
        if self._protocol is None:
            return
        rejected = self._check_peer(self.peer_certificate())
        if rejected is not None:
            self._give_up(rejected)
        else:
            self.write_plain(self._protocol.connect().serialize())

    def handshake_received(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end >= 4 and self._head.startswith(b"HTTP/1.1 101 "):
            self._open(self._head[:end], self._head[end:])
        elif len(self._head) > MAX_HEAD:
            self._give_up(BadHandshake("the answer is too large"))
        elif end >= 4 and self._body_is_complete(end):
            self._read_refusal()

    def handshake_lost(self, error: BaseException | None) -> None:
        if isinstance(error, (ssl.SSLError, ValueError)):
            self._give_up(TlsFailed(error))
        elif b"\r\n\r\n" in self._head:  # the answer's body ended with the connection
            self._read_refusal()
        else:
            self._give_up(BadHandshake(str(error or "the connection ended without an answer"), has_ended=True))

    def _open(self, head: bytes, rest: bytes) -> None:
        protocol, self._protocol, self._head = self._protocol, None, b""
        if protocol is None:
            return
        protocol.receive_data(head)
        if protocol.handshake_exc is not None:
            self._give_up(BadHandshake(f"{type(protocol.handshake_exc).__name__}: {protocol.handshake_exc}"))
        elif protocol.subprotocol != self._subprotocol:
            self._give_up(BadHandshake("the relay chose no subprotocol"))
        else:
            self.open_messages(self._open_receiver(self))
            if not self.opened.done():
                self.opened.set_result(None)
            if rest:
                self.plain_received(memoryview(rest), len(rest))

    def _body_is_complete(self, end: int) -> bool:
        length = _CONTENT_LENGTH.search(self._head, 0, end)
        return length is not None and len(self._head) - end >= int(length[1])

    def _read_refusal(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        protocol.receive_data(self._head)
        protocol.receive_eof()
        response = next((event for event in protocol.events_received() if isinstance(event, Response)), None)
        if response is None:
            self._give_up(BadHandshake("the answer is no HTTP response"))
        else:
            headers = {name.lower(): value for name, value in response.headers.raw_items()}
            self._give_up(HandshakeRefused(response.status_code, headers, bytes(response.body)))

    def _give_up(self, error: HandshakeError) -> None:
        self._protocol = None
        if not self.opened.done():
            self.opened.set_exception(error)
        self.close_stream()


async def open_websocket(
    raw: asyncio.Transport,
    context: ssl.SSLContext,
    buffers: ReadBuffers,
    endpoint: Endpoint,
    open_receiver: Callable[[ClientTransport], MessageReceiver],
    time_limit: float = HANDSHAKE_TIMEOUT,
    check_peer: CheckPeer = _content,
) -> ClientTransport:
    """Shake hands over `raw`, which must be paused and is the new transport's from now on, also when this fails.

    `check_peer` has the last word on the relay's certificate. `open_receiver` is called in the moment in which the
    relay agreed: messages may come with its answer. Raises HandshakeError, or TimeoutError after `time_limit` seconds.
    Cancelled, it leaves no connection behind.
    """
    loop = asyncio.get_running_loop()
    transport = ClientTransport(loop, context, buffers, endpoint, open_receiver, check_peer)
    raw.set_protocol(transport)
    transport.connection_made(raw)
    raw.resume_reading()
    try:
        async with asyncio.timeout(time_limit):
            await transport.opened
    except BaseException:
        transport.abort()
        raise
    return transport
