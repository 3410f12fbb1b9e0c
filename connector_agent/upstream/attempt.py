"""One try to connect, for a pool: all of a pool that waits.

It is a module of its own since it is not compiled (`setup.py`): mypyc's `await` hands an exception on by the form of
`throw` that Python 3.12 and later warn of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from connector_agent.upstream.connection import UpstreamConnection
from shared.errors import LocalFault


class Trying(Protocol):
    """What the try is made for."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Whose clock says when the try began."""

    def begin(self) -> Coroutine[Any, Any, UpstreamConnection]:
        """It is made now."""

    def connected(self, connection: UpstreamConnection, began: float) -> None:
        """It gave a connection, which may be closed again already."""

    def failed(self, fault: LocalFault, began: float) -> None:
        """It gave none."""


async def attempt(pool: Trying) -> None:
    """Connect, and tell `pool` what came of it; nothing after a cancellation."""
    began = pool.loop.time()
    try:
        connection = await pool.begin()
    except LocalFault as fault:
        pool.failed(fault, began)
    else:
        pool.connected(connection, began)
