"""The tunnel's message transport, a WebSocket over TLS: what both sides share. The handshakes are modules of their own.

States: handshaking → open → closing → closed. In `open` bytes go to the FrameReader; `closing` begins with the first
close message, ours or the peer's, and is bounded by CLOSE_TIMEOUT; `transport_closed` tells of the end, once.
A connection that ends without the peer's close message was lost, whatever TLS or TCP said.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Iterable
from typing import Final

from websockets.exceptions import ProtocolError
from websockets.frames import Close

from shared.tunnel.tls import ReadBuffers, TlsStream
from shared.tunnel.transport import HIGH_WATER, MAX_MESSAGE, MessageReceiver
from shared.tunnel.websocket_frames import BINARY, CLOSE, PING, PONG, FrameError, FrameReader, encode_frame

SUBPROTOCOL: Final = "qanat.v1"
"""What a tunnel speaks."""

ENROLL_SUBPROTOCOL: Final = "qanat-enroll.v1"
"""What a connector speaks that has no certificate yet: one question, one answer."""

MAX_ENROLMENT: Final = 16 * 1024
"""Bytes of the message by which a connector asks to join."""

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds from the TCP connection to the end of the WebSocket handshake."""

CLOSE_TIMEOUT: Final = 3.0
"""Seconds from the first close message to the end of the connection."""

MAX_HEAD: Final = 16 * 1024
"""Bytes of a handshake's request or response, its body included."""

CONTROL_FRAMES_PER_SECOND: Final = 50
"""A peer that sends more WebSocket pings or pongs is cut off: the tunnel has a PING of its own and needs none."""


def worker_protocol(worker: int) -> str:
    """What a client offers by ALPN that means this process of a relay. Read before TLS, and never chosen."""
    return f"qanat-worker-{worker}"


def worker_of(protocols: Iterable[bytes]) -> int | None:
    """The process that is meant by what a ClientHello offers."""
    for protocol in protocols:
        number = protocol.removeprefix(b"qanat-worker-")
        if number != protocol and number.isdigit() and len(number) <= 3:
            return int(number)
    return None


class Phase(enum.Enum):
    """Where a connection stands."""

    HANDSHAKING = "handshaking"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class WebSocketTransport(TlsStream):
    """A MessageTransport. Its receiver is given with `open_messages`, which a handshake module calls."""

    __slots__ = (
        "_close_code",
        "_close_reason",
        "_close_timer",
        "_control_count",
        "_control_since",
        "_error",
        "_is_client",
        "_mask_keys",
        "_phase",
        "_reader",
        "_receiver",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        buffers: ReadBuffers,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        protocol: str | None = None,
    ) -> None:
        super().__init__(
            loop, context, buffers, server_side=server_side, server_hostname=server_hostname, protocol=protocol
        )
        self._phase = Phase.HANDSHAKING
        self._is_client = not server_side
        self._mask_keys = buffers.mask_keys
        self._receiver: MessageReceiver | None = None
        self._reader: FrameReader | None = None
        self._close_code: int | None = None
        self._close_reason = ""
        self._close_timer: asyncio.TimerHandle | None = None
        self._control_count = 0
        self._control_since = 0.0
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        side = "client" if self._is_client else "server"
        return f"<WebSocketTransport {side} {self._phase.value} peer={self.peer_address()} buffered={self.buffered()}>"

    def open_messages(self, receiver: MessageReceiver, limit: int = MAX_MESSAGE) -> None:
        """The handshake is done: messages go to `receiver` from now on, none of them larger than `limit` bytes."""
        self._receiver = receiver
        self._reader = FrameReader(
            masked=not self._is_client,
            on_message=receiver.message_received,
            on_control=self._control_received,
            limit=limit,
        )
        self._phase = Phase.OPEN

    def handshake_received(self, data: bytes) -> None:
        """Bytes of the HTTP part. A handshake module implements this."""
        raise NotImplementedError

    def handshake_lost(self, error: BaseException | None) -> None:
        """The connection ended before `open_messages`. A handshake module implements this."""
        raise NotImplementedError

    # MessageTransport

    def send(self, message: bytes) -> None:
        if self._phase is not Phase.OPEN or not message:
            return
        if len(message) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes")
        self.write_plain(encode_frame(BINARY, message, next(self._mask_keys) if self._is_client else None))

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self._phase is Phase.OPEN:
            self._begin_closing()
            self._send_close(code, reason)
        elif self._phase is Phase.HANDSHAKING:
            self.abort()

    def abort(self) -> None:
        if self._phase is not Phase.CLOSED:
            self._phase = Phase.CLOSING
            self._stop_reading()
            self.abort_stream()

    def describe(self) -> str:
        return self.peer_address()

    # TlsStream

    def wire_received(self) -> None:
        if self._receiver is not None:
            self._receiver.bytes_received()

    def plain_received(self, view: memoryview, size: int) -> None:
        reader = self._reader
        if reader is None:
            self.handshake_received(bytes(view[:size]))
            return
        try:
            reader.feed(view, size)
        except FrameError as error:
            self._fail_messages(error)

    def writable(self) -> None:
        if self._phase is Phase.OPEN and self._receiver is not None:
            self._receiver.transport_writable()

    def stream_lost(self, error: BaseException | None) -> None:
        self._phase = Phase.CLOSED
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._reader is not None:
            self._reader.stop()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.transport_closed(self._close_code, self._close_reason, self._error or error)
        else:
            self.handshake_lost(error)

    # Control frames.

    def _control_received(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._close_received(payload)
        elif self._is_control_flood():
            raise FrameError(1008, "too many control frames")
        elif opcode == PING and self._phase is Phase.OPEN and self.buffered() <= HIGH_WATER:
            self._send_frame(PONG, payload)

    def _is_control_flood(self) -> bool:
        now = self.loop.time()
        if now - self._control_since >= 1.0:
            self._control_since = now
            self._control_count = 0
        self._control_count += 1
        return self._control_count > CONTROL_FRAMES_PER_SECOND

    def _close_received(self, payload: bytes) -> None:
        try:
            close = Close.parse(payload)
        except (ProtocolError, UnicodeDecodeError) as error:
            raise FrameError(1002, "malformed close message") from error
        self._close_code, self._close_reason = int(close.code), close.reason
        self._stop_reading()
        if self._phase is Phase.OPEN:
            self._begin_closing()
            self._send_frame(CLOSE, payload)
            self._tell_closing()
        if not self._is_client:  # the client waits for the server to end TCP (RFC 6455, 7.1.1)
            self.finish_writing()

    def _fail_messages(self, error: FrameError) -> None:
        self._error = error
        self._stop_reading()
        if self._phase is Phase.OPEN:
            self._begin_closing()
            self._send_close(error.code, error.reason)
            self._tell_closing()
        self.finish_writing()

    def _tell_closing(self) -> None:
        if self._receiver is not None:
            self._receiver.transport_closing(self._close_code, self._close_reason)

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def _begin_closing(self) -> None:
        self._phase = Phase.CLOSING
        self._close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.abort_stream)

    def _send_close(self, code: int, reason: str) -> None:
        text = reason.encode()[:120].decode(errors="ignore")
        self._send_frame(CLOSE, Close(code, text).serialize())

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        self.write_plain(encode_frame(opcode, payload, next(self._mask_keys) if self._is_client else None))
