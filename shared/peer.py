"""Who is at the other end of a Unix socket, as the kernel says (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

_UCRED: Final = struct.Struct("3i")


def peer_uid(transport: asyncio.BaseTransport | None) -> int | None:
    """The user at the other end of a Unix socket; None where the kernel does not say."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    option = getattr(socket, "SO_PEERCRED", None)
    if sock is None or option is None:
        return None
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return int(uid)
