"""What a worker that is about to leave waits for: that its siblings have tunnels for whatever only it has one for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shared.logs import get_logger
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.registry import Registry
    from cloud_relay.session import Key
    from cloud_relay.tunnels import TunnelListener
    from cloud_relay.workers.wide import WideRegistry

PATIENCE: Final = 15.0
"""Seconds for connectors to come to a sibling after they were asked, beyond the spread of their dials."""

LOOK: Final = 0.05
"""Seconds between looks at whether they are there."""

NAMED: Final = 3
"""Targets that are named in the log, of those for which nobody came."""

log = get_logger("relay.workers")


async def until_covered(tunnel: TunnelListener, local: Registry, wide: WideRegistry, lasts: float) -> None:
    """Ask all connectors here for new tunnels, which go to siblings as this worker lets in nobody any more, and wait
    for them. The old ones serve on meanwhile, for `lasts` seconds at most.

    Connectors that do not come are left behind: the log names their targets.
    """
    loop = tunnel.loop
    asking = spawn(tunnel.ask_replacements(lasts), "asking for new tunnels")
    until = loop.time() + tunnel.reconnect_spread + PATIENCE
    try:
        while missing := _only_here(local, wide):
            if loop.time() >= until:
                names = ", ".join("/".join(key) for key in missing[:NAMED])
                log.warning("no connector has come to another worker", targets=len(missing), names=names)
                return
            await asyncio.sleep(LOOK)
        await asking
    finally:
        await cancel(asking)


def _only_here(local: Registry, wide: WideRegistry) -> list[Key]:
    elsewhere = set().union(*(sibling.keys for sibling in wide.siblings))
    return [key for key in local.keys() if key not in elsewhere]  # noqa: SIM118 - a registry is no mapping
