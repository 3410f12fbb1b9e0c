"""How a worker ends while others of its relay serve on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cloud_relay.workers.covering import until_covered

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp

LOOK: Final = 0.1
"""Seconds between looks at whether the last connection has ended."""


async def serve_out(app: RelayApp) -> None:
    """Let in nobody any more, have the connectors open tunnels to the siblings, and serve the connections that
    there are until they end, `drain.upgrade` at most.

    Each answer closes its connection; idle ones end by themselves.
    """
    doors = app.doors
    if doors is None:
        return
    app.relieve()
    doors.pause_ports()
    drain = app.config.drain
    until = app.loop.time() + drain.upgrade
    if app.team is not None:
        await until_covered(doors.tunnel, app.registry, app.team.wide, drain.upgrade + drain.timeout)
    while doors.open_connections and app.loop.time() < until:  # noqa: ASYNC110 - of many kinds, none tells
        await asyncio.sleep(LOOK)
