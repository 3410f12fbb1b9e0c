"""How connections end at both edges, under TLS or not: made to look cut off, and told from having been cut off."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)


def cut_off(transport: asyncio.Transport) -> None:
    """End with a TCP RST, so that what was sent so far can never pass for all of it.

    `abort` alone would send FIN, which for bytes that last until the connection closes means: complete.
    Under TLS the missing close_notify says the same; the RST makes sure where the peer does not look.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        let_reset(sock)
    transport.abort()


def let_reset(sock: socket.socket) -> None:
    """When this socket is closed, it sends a RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except (OSError, ValueError):  # gone already; uvloop then names a negative descriptor
        pass


def ended_well(transport: asyncio.Transport | None) -> bool:
    """Whether TLS said goodbye, at the time of `eof_received`: uvloop calls that only then, asyncio also after a bare
    end of TCP."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
