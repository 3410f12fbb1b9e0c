"""Where the tunnels of one connector go, of a relay that is several processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector_agent.tunnel import Tunnel


def uncovered(tunnels: Iterable[Tunnel], workers: int) -> list[int]:
    """The processes that none of these tunnels goes to, as far as is known."""
    covered = {tunnel.relay_hello.worker for tunnel in tunnels if tunnel.relay_hello is not None}
    return [worker for worker in range(workers) if worker not in covered]


def doubled(tunnels: Iterable[Tunnel]) -> list[Tunnel]:
    """Tunnels to a process to which there is an earlier one among these."""
    seen: set[int] = set()
    found = []
    for tunnel in tunnels:
        worker = tunnel.relay_hello.worker if tunnel.relay_hello is not None else 0
        if worker in seen:
            found.append(tunnel)
        seen.add(worker)
    return found


def surplus(tunnels: Iterable[Tunnel], too_many: int) -> list[Tunnel]:
    """So many at most, the youngest first, of those that go where an earlier one goes."""
    return doubled(tunnels)[::-1][: max(0, too_many)]
