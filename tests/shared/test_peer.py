from __future__ import annotations

import asyncio
import os
import socket

from shared.peer import peer_uid


async def test_the_kernel_names_the_peer():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    _, writer = await asyncio.open_unix_connection(sock=ours)
    assert peer_uid(writer.transport) == os.geteuid()
    writer.close()
    theirs.close()
    await writer.wait_closed()
    assert peer_uid(None) is None
