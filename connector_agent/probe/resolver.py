"""Names are resolved for probes apart from those of pushes.

The loop's own threads for it are few, and a look-up whose server does not answer keeps one for many seconds, whoever
has stopped waiting. Probes come all by themselves and again and again: they must not use up what pushes need. So each
look-up has a thread of its own, which nobody waits for at the end of the process, and a name has one at a time.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

Found = list[Any]


class Resolver:
    """Call it with a host and a port: what `socket.getaddrinfo` gives for TCP. Raises OSError, UnicodeError."""

    def __init__(self, look_up: Callable[..., Found] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._running: dict[tuple[str, int], asyncio.Future[Found]] = {}

    async def __call__(self, host: str, port: int) -> Found:
        """Joins a look-up of the same name that is under way. Cancelled, it leaves that to itself."""
        key = (host, port)
        future = self._running.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._running[key] = loop.create_future()
            future.add_done_callback(lambda done: self._forget(key, done))
            threading.Thread(target=self._run, args=(loop, key, future), name=f"resolve {host}", daemon=True).start()
        return await asyncio.shield(future)

    def __repr__(self) -> str:
        return f"<Resolver {len(self._running)} look-ups>"

    def _run(self, loop: asyncio.AbstractEventLoop, key: tuple[str, int], future: asyncio.Future[Found]) -> None:
        """In the thread."""
        found: Found = []
        error: Exception | None = None
        try:
            found = self._look_up(*key, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as failure:
            error = failure
        try:
            loop.call_soon_threadsafe(_settle, future, found, error)
        except RuntimeError:  # the loop is closed: nobody wants to know any more
            pass

    def _forget(self, key: tuple[str, int], future: asyncio.Future[Found]) -> None:
        self._running.pop(key, None)
        if not future.cancelled():
            future.exception()  # whoever asked may be gone


def _settle(future: asyncio.Future[Found], found: Found, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)
