"""Messages over a Unix socket: between processes of one user on one host, without TLS or WebSocket.

    frame:  length (4 bytes, big-endian), then so many bytes of a message
    close:  2³¹ + length of the reason, then code (2 bytes) and reason (UTF-8)

Whoever closes says so, and the other end says it back, as in RFC 6455 §7.1; then the socket is closed.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, cast

from shared.peer import peer_uid
from shared.tunnel.transport import HIGH_WATER, MAX_MESSAGE

if TYPE_CHECKING:
    from shared.tunnel.transport import MessageReceiver

CLOSE_TIMEOUT: Final = 3.0
"""Seconds that the other end has to say its goodbye."""

_CLOSE: Final = 1 << 31
_MAX_REASON: Final = 120
_HEAD: Final = 4


class LocalTransport(asyncio.Protocol):
    """One end: the protocol of a Unix socket's connection. `receiver` must be set before the first bytes come."""

    __slots__ = (
        "_buffer",
        "_code",
        "_error",
        "_is_closed",
        "_is_closing",
        "_loop",
        "_raw",
        "_reason",
        "_timer",
        "receiver",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: MessageReceiver | None = None) -> None:
        self.receiver = receiver
        self._loop = loop
        self._raw: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._is_closing = self._is_closed = False
        self._code: int | None = None
        self._reason = ""
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LocalTransport{' closing' if self._is_closing else ''} buffered={self.buffered()}>"

    # --- MessageTransport

    def send(self, message: bytes) -> None:
        """See MessageTransport."""
        if len(message) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes is larger than {MAX_MESSAGE}")
        if message and not self._is_closing and self._raw is not None:
            self._raw.write(len(message).to_bytes(_HEAD) + message)

    def buffered(self) -> int:
        """See MessageTransport."""
        return self._raw.get_write_buffer_size() if self._raw is not None else 0

    def close(self, code: int = 1000, reason: str = "") -> None:
        """See MessageTransport."""
        if self._is_closing:
            return
        self._say_goodbye(code, reason)
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """See MessageTransport."""
        self._is_closing = True
        if self._raw is not None:
            self._raw.abort()

    def describe(self) -> str:
        """See MessageTransport."""
        return "this host"

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if peer_uid(transport) != os.geteuid():  # the socket's mode keeps others out already; this does so by itself
            self._error = PermissionError("the process at the other end is another user's")
            self.abort()
            return
        self._raw.set_write_buffer_limits(HIGH_WATER, HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self.receiver is None or self._code is not None:
            return
        self.receiver.bytes_received()
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        rest = self._read(data)
        if rest < len(data) and not self._is_closed:
            self._buffer += memoryview(data)[rest:]

    def resume_writing(self) -> None:
        if self.receiver is not None and not self._is_closing:
            self.receiver.transport_writable()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._buffer.clear()
        if self.receiver is not None:
            self.receiver.transport_closed(self._code, self._reason, self._error or error)

    # --- within

    def _read(self, data: bytes) -> int:
        """Hand on what is whole; where the rest begins."""
        start, receiver = 0, cast("MessageReceiver", self.receiver)
        while len(data) - start >= _HEAD and self._raw is not None and not self._raw.is_closing():
            size = int.from_bytes(data[start : start + _HEAD])
            if size & _CLOSE:
                if len(data) - start < _HEAD + 2 + (size ^ _CLOSE):
                    break
                self._on_goodbye(data[start + _HEAD : start + _HEAD + 2 + (size ^ _CLOSE)])
                return len(data)
            if not 0 < size <= MAX_MESSAGE:
                self._error = ValueError(f"a message of {size} bytes")
                self.abort()
                return len(data)
            end = start + _HEAD + size
            if end > len(data):
                break
            receiver.message_received(data[start + _HEAD : end])
            start = end
        return start

    def _on_goodbye(self, payload: bytes) -> None:
        self._code, self._reason = int.from_bytes(payload[:2]), payload[2:].decode(errors="replace")
        if not self._is_closing:
            if self.receiver is not None:
                self.receiver.transport_closing(self._code, self._reason)
            self._say_goodbye(self._code, self._reason)
        if self._raw is not None:
            self._raw.close()

    def _say_goodbye(self, code: int, reason: str) -> None:
        self._is_closing = True
        text = reason.encode()[:_MAX_REASON].decode(errors="ignore").encode()
        if self._raw is not None:
            self._raw.write((_CLOSE | len(text)).to_bytes(_HEAD) + code.to_bytes(2) + text)
