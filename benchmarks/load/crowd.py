"""Many tunnels in one process: each is real (mTLS, WebSocket, pings), and is kept up as a connector keeps its own.

    python -m benchmarks.load.crowd CONNECTOR_CONFIG PKI_FOLDER HOST PORT TIMELINE_FILE IDENTITIES_FILE

An identity is the stem of its files, such as `connector.idle.many.c0`; one that is named more than once gets as many
tunnels, each of which comes back by itself. What the relay hands to any of them goes to the
targets of the config. The timeline gets a line for each change: CLOCK_MONOTONIC, and how many tunnels are up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from connector_agent.build import make_targets, read_materials
from connector_agent.config import ConnectorConfig
from connector_agent.dialer import Contexts, Dialer
from connector_agent.dispatch import Dispatcher
from connector_agent.metrics import ConnectorMetrics
from connector_agent.targets import TargetTable
from connector_agent.tunnels import Tunnels
from shared.access_log import AccessLog
from shared.config import load_config
from shared.logs import setup_logging
from shared.pki.tls import tunnel_client_context
from shared.process import loop_factory, raise_file_limit, tune_gc
from shared.protocol import MemoryBudget
from shared.tunnel.gaps import GapWatch
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket_client import ClientTransport

_AT_ONCE = 64
"""Tunnels that are dialled for the first time at once; afterwards each goes by its own clock."""

_HANDSHAKES = 48
"""Dials under way at once. Ten thousand machines have ten thousand cores for theirs; this process has one, and more at
once than it gets done would run into the relay's time limit for a handshake, be repeated, and so become ever more."""

_TICK = 0.1


class PacedDialer(Dialer):
    """A dialer that waits for its turn among all of this process."""

    def __init__(self, contexts: Callable[[], Contexts], turns: asyncio.Semaphore) -> None:
        super().__init__(contexts)
        self._turns = turns

    async def dial(
        self,
        host: str,
        port: int,
        open_receiver: Callable[[ClientTransport], MessageReceiver],
        worker: int | None = None,
    ) -> ClientTransport:
        async with self._turns:
            return await super().dial(host, port, open_receiver, worker)


class Crowd:
    """The tunnels; all hand their pushes to one dispatcher."""

    def __init__(self, config: ConnectorConfig, pki: Path, relay: tuple[str, int], identities: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        metrics = ConnectorMetrics()
        self._table = TargetTable(make_targets(config, read_materials(config), metrics, loop, lambda *_: None))
        self._gaps = GapWatch(loop)
        self._dispatcher = Dispatcher(self._table, loop, metrics, AccessLog(loop, 1), self._gaps)
        self._budget = MemoryBudget(config.memory.budget)
        self._relay, self._pki = relay, pki
        self._dialers: dict[str, Dialer] = {}  # with its buffers and certificates each takes a third of a megabyte
        self._metrics = metrics.tunnels
        self._turns = asyncio.Semaphore(_HANDSHAKES)
        self._members = [self._member(name) for name in identities]

    def _member(self, name: str) -> Tunnels:
        if name not in self._dialers:
            own = tunnel_client_context(self._pki / "ca.pem", self._pki / f"{name}.pem", self._pki / f"{name}.key")
            contexts = Contexts(own, own)
            self._dialers[name] = PacedDialer(lambda: contexts, self._turns)
        member = Tunnels(
            [self._relay], self._dialers[name], self._dispatcher.on_stream, self._table.announcement,
            count=1, budget=self._budget, gaps=self._gaps, metrics=self._metrics,
        )  # fmt: skip
        member._instance = f"{name}-{os.getpid()}"  # all of one name are one connector to the relay
        return member

    @property
    def size(self) -> int:
        """Tunnels that there should be."""
        return len(self._members)

    @property
    def up(self) -> int:
        """Tunnels that are open now."""
        return sum(member.open_count for member in self._members)

    async def open(self) -> None:
        """Starts them, some at a time, until all are started."""
        self._gaps.start()
        started = 0
        while started < len(self._members):
            wanted = min(len(self._members), sum(one.open_count for one in self._members[:started]) + _AT_ONCE)
            for member in self._members[started:wanted]:
                member.start()
            started = max(started, wanted)
            await asyncio.sleep(_TICK / 4)


async def _record(crowd: Crowd, path: Path) -> None:
    """Writes how many are up, whenever that has changed."""
    last = -1
    with path.open("a", buffering=1) as file:
        while True:
            up = crowd.up
            if up != last:
                file.write(f"{time.monotonic():.3f} {up}\n")
                last = up
            await asyncio.sleep(_TICK if up < crowd.size else 5 * _TICK)


async def run(config: Path, pki: Path, relay: tuple[str, int], timeline: Path, identities: Sequence[str]) -> None:
    """Opens the tunnels and keeps them until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    crowd = Crowd(load_config(config, ConnectorConfig), pki, relay, identities)
    tune_gc()
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(_record(crowd, timeline), name="timeline")
        opening = tasks.create_task(crowd.open(), name="opening")
        await stopped.wait()
        recording.cancel()
        opening.cancel()
    os._exit(0)  # ten thousand goodbyes are of no interest: the relay is ended next, or sees the sockets closed


def main() -> None:
    raise_file_limit()
    setup_logging("json", "error")
    config, pki, host, port, timeline, identities = sys.argv[1:]
    names = Path(identities).read_text().split()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(Path(config), Path(pki), (host, int(port)), Path(timeline), names))


if __name__ == "__main__":
    main()
