"""TLS under a tunnel: an asyncio protocol that drives OpenSSL itself, on uvloop and on plain asyncio alike.

asyncio's own TLS transports are not used, for what a tunnel needs and they cannot give: the number of bytes that the
kernel has not taken yet (they keep two buffers and tell of one), an alert that reaches the peer when a handshake fails
(they drop it), a half-closed TCP connection under a closed TLS session (so that a last message is not lost to a RST),
and read buffers shared by all connections (plain asyncio keeps 256 KiB a connection).

    the socket ──cipher──▶ incoming BIO ──OpenSSL──▶ plain buffer ──▶ plain_received()
    the socket ◀──raw.write── outgoing BIO ◀──OpenSSL── write_plain()

The BIOs never hold more than CHUNK bytes, since OpenSSL never gives their memory back.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from shared.tunnel.endings import cut_off
from shared.tunnel.transport import HIGH_WATER

RECORD: Final = 16 * 1024
"""Bytes of plain text in the largest TLS record (RFC 8446, 5.1)."""

CHUNK: Final = 32 * 1024
"""Bytes that pass through a BIO at once."""

READ_SIZE: Final = 128 * 1024
"""Bytes taken from the socket at once."""

NOTSENT_LOWAT: Final = 128 * 1024
"""Unsent bytes that the kernel takes: what it has taken, a small push cannot overtake."""

LINGER: Final = 1.0
"""Seconds that a finished connection waits for its peer's end: closing at once could turn a last message into a RST."""

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)


class ReadBuffers:
    """Scratch memory that all connections of one event loop read through; nothing stays in it between two calls.

    `mask_keys` are the WebSocket masking keys of the loop's clients, drawn from the system in blocks.
    """

    __slots__ = ("cipher", "mask_keys", "plain")

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(READ_SIZE))
        # A read never yields more plain text than its cipher text, plus a record that was incomplete before.
        self.plain = memoryview(bytearray(READ_SIZE + RECORD))
        self.mask_keys = _draw_mask_keys()


def _draw_mask_keys() -> Iterator[bytes]:
    while True:
        block = os.urandom(1024)
        for start in range(0, len(block), 4):
            yield block[start : start + 4]


class TlsStream(asyncio.BufferedProtocol):
    """One TLS connection over a plain TCP transport. Subclasses say what is done with the plain text.

    A subclass gets, in this order: `tls_established` once, then `plain_received` and `wire_received` any number of
    times, then `stream_lost` once, which also comes alone when the handshake fails. `writable` may come in between.
    """

    __slots__ = (
        "_buffers",
        "_cipher",
        "_incoming",
        "_is_established",
        "_is_finished",
        "_joins",
        "_outgoing",
        "_peer",
        "_plain",
        "_raw",
        "_tls",
        "_tls_error",
        "loop",
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
        """`protocol`: what the client offers by ALPN, this once."""
        self.loop = loop
        self._buffers = buffers
        self._cipher = buffers.cipher
        self._plain = buffers.plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if protocol is not None:
            context.set_alpn_protocols([protocol])  # copied by wrap_bio; the context is shared
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        if protocol is not None:
            context.set_alpn_protocols([])
        # From 3.12 on plain asyncio has a writelines() of its own. It does not always call pause_writing(), and then
        # never resume_writing() (gh-127655: up to 3.12.8 and 3.13.1); and it goes on when the connection is lost
        # (gh-136234).
        self._joins = isinstance(loop, asyncio.BaseEventLoop)
        self._is_established = False
        self._is_finished = False
        self._tls_error: BaseException | None = None
        self._peer = "unknown"
        self._raw: asyncio.Transport = cast(asyncio.Transport, None)  # there from connection_made on

    # What a subclass implements.

    def tls_established(self) -> None:
        """The handshake succeeded; the peer's certificate, if any, was verified."""
        raise NotImplementedError

    def wire_received(self) -> None:
        """Bytes arrived, perhaps less than a record: the peer is alive. Comes before their `plain_received`."""

    def plain_received(self, view: memoryview, size: int) -> None:
        """`size` bytes of plain text stand at the start of `view`, which is only valid during the call."""
        raise NotImplementedError

    def plain_ended(self) -> bool:
        """The peer's close_notify: no plain text follows. True keeps the connection, for there is more to write."""
        return False

    def writable(self) -> None:
        """What is buffered fell to HIGH_WATER or below, after having been above."""

    def stream_lost(self, error: BaseException | None) -> None:
        """The connection is over: the last call. `error` is None after a good end of TCP or `abort_stream`."""
        raise NotImplementedError

    # What a subclass calls.

    def peer_certificate(self) -> bytes | None:
        """The peer's verified certificate in DER, None if it showed none."""
        return self._tls.getpeercert(binary_form=True)

    def peer_chain(self) -> tuple[bytes, ...]:
        """The peer's certificate and the CAs' above it up to the one that is trusted, in DER, as OpenSSL verified them;
        empty if the peer showed none."""
        if self._tls.getpeercert(binary_form=True) is None:
            return ()
        return verified_chain(self._tls)

    def peer_address(self) -> str:
        """`host:port` of the TCP peer."""
        return self._peer

    def write_plain(self, data: bytes) -> None:
        """Encrypt and send `data`. What the kernel does not take stays in the transport: see `buffered`."""
        try:
            if len(data) <= RECORD:
                self._tls.write(data)
                self._raw.write(self._outgoing.read())
            else:
                pieces = self._encrypt(memoryview(data))
                if self._joins:
                    self._raw.write(b"".join(pieces))
                else:
                    self._raw.writelines(pieces)
        except ssl.SSLError as error:  # only after a fatal alert: the read side is about to report it
            self._fail(error)

    def buffered(self) -> int:
        """Bytes of cipher text that the kernel has not taken."""
        return self._raw.get_write_buffer_size()

    def finish_writing(self) -> None:
        """Say close_notify and half-close TCP. What arrives from now on is thrown away, for LINGER seconds at most."""
        if not self._is_finished:
            self._is_finished = True
            self._say_goodbye()
            self._linger()

    def close_stream(self) -> None:
        """Say close_notify and close once everything is sent."""
        if not self._is_finished:
            self._is_finished = True
            self._say_goodbye()
        self._raw.close()

    def abort_stream(self) -> None:
        """Close at once; `stream_lost` follows on a later tick.

        By a RST: what the kernel still holds is thrown away. After a FIN it would go on trying, and a peer that is back
        after a while would take in what its senders were told is lost. Before TLS is up there is nothing of the kind.
        """
        self._is_finished = True
        if self._is_established:
            cut_off(self._raw)
        else:
            self._raw.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple) and len(name) >= 2:
            self._peer = f"{name[0]}:{name[1]}"
        self._raw.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER)
        set_socket_options(transport.get_extra_info("socket"))
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._cipher

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_finished:
            return
        self.wire_received()
        if nbytes <= CHUNK:
            self._incoming.write(self._cipher[:nbytes])
            size = self._decrypt(0)
        else:
            size = 0
            for start in range(0, nbytes, CHUNK):
                self._incoming.write(self._cipher[start : min(start + CHUNK, nbytes)])
                size = self._decrypt(size)
        if size and not self._is_finished:
            self.plain_received(self._plain, size)
        if self._tls_error is not None and not self._is_finished:
            self._end_of_plain()

    def eof_received(self) -> bool:
        return False

    def resume_writing(self) -> None:
        self.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_finished = True
        error = self._tls_error if isinstance(self._tls_error, ssl.SSLError) else exc
        self.stream_lost(error)

    # OpenSSL's side.

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLError, ValueError) as error:  # ValueError: a host name that cannot be one
            self._fail(error)
        else:
            self._is_established = True
            self._flush()
            self.tls_established()

    def _decrypt(self, offset: int) -> int:
        """Move what the incoming BIO holds to the plain buffer, behind `offset` bytes; return the new end."""
        if not self._is_established:
            self._handshake()
            if not self._is_established:
                return offset
        read: Callable[[int, memoryview], int] = cast(Any, self._tls.read)  # typeshed knows the other use alone
        plain, incoming = self._plain, self._incoming
        try:
            # One call yields one record at most. Asking once too often costs an exception: look first.
            while incoming.pending:
                got = read(RECORD, plain[offset:])
                if not got:
                    self._tls_error = EOFError("close_notify")
                    break
                offset += got
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._tls_error = error
        if self._outgoing.pending:  # an answer to a key update, or an alert
            self._flush()
        return offset

    def _encrypt(self, data: memoryview) -> list[bytes]:
        pieces = []
        for start in range(0, len(data), CHUNK):
            stop = min(start + CHUNK, len(data))
            for at in range(start, stop, RECORD):
                self._tls.write(data[at : min(at + RECORD, stop)])
            pieces.append(self._outgoing.read())
        return pieces

    def _end_of_plain(self) -> None:
        if isinstance(self._tls_error, ssl.SSLError):
            self._fail(self._tls_error)
        else:
            if not self.plain_ended():
                self.close_stream()

    def _fail(self, error: BaseException) -> None:
        """Send the alert that OpenSSL prepared, and close."""
        self._tls_error = error
        if not self._is_finished:
            self._is_finished = True
            self._flush()
            self._linger()

    def _linger(self) -> None:
        if not self._raw.is_closing():
            if self._raw.can_write_eof():  # not so when TCP is the TLS session with a proxy
                self._raw.write_eof()
            self.loop.call_later(LINGER, self._raw.abort)

    def _say_goodbye(self) -> None:
        if self._is_established:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # the peer's close_notify is not waited for; or the session is broken already
                pass
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())


_ENCODING_DER: Final = 2
"""_ssl.ENCODING_DER."""


def verified_chain(connection: ssl.SSLObject) -> tuple[bytes, ...]:
    """The chain that OpenSSL has verified, in DER, the peer's own certificate first."""
    if sys.version_info >= (3, 13):
        return tuple(connection.get_verified_chain())
    # Before 3.13 only the private object knows it, as objects of its own; 3.10 to 3.12 all do.
    chain = connection._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined]  # see above
    return tuple(one.public_bytes(_ENCODING_DER) for one in chain)


def set_socket_options(sock: socket.socket | None) -> None:
    """No delay for small messages, and little that the kernel takes before it can send it."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
