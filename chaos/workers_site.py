"""A site whose relay is several processes."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from chaos.site import RELAY, Site

WORKERS: Final = 3
_PATIENCE: Final = 20.0


class WorkersSite(Site):
    """As a Site; each connector has a tunnel to each worker."""

    options = ("--workers", str(WORKERS))
    tunnels = WORKERS
    held = 1024  # workers keep a stream for news between each two of them

    async def relay_listens(self) -> float:
        """The supervisor's ports are there before anybody serves: until all workers do."""
        await super().relay_listens()
        deadline = time.monotonic() + _PATIENCE
        while (status := await self.status(RELAY)) is None or not _all_serve(status):
            assert time.monotonic() < deadline, f"not all workers serve\n{self.relay.err[-2000:]}"
            await asyncio.sleep(0.05)
        return time.monotonic()

    async def _unrest(self) -> list[str]:
        status = await self.status(RELAY)
        return await super()._unrest() + (
            [] if status is not None and _all_serve(status) else ["not all workers serve"]
        )

    @property
    def workers(self) -> list[int]:
        """Their processes, by their age: the supervisor's is not among them."""
        return self.processes(RELAY)[1:]


def _all_serve(status: dict[str, Any]) -> bool:
    return bool(status["state"] == "serving" and status["workers"]["answering"] == WORKERS)
