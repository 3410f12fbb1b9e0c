"""A crowd of connectors in one process: each dials, keeps and loses its tunnel by the real connector's code.

    python -m chaos.crowd JOURNAL PKI_FOLDER HOST PORT IDENTITY…

An identity is the stem of its files in the PKI, such as `connector.crowd.dc.k0`. The journal gets a record of how many
are attached, at most ten times a second, whenever that changes.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from chaos.journal import Writer
from connector_agent.dialer import Contexts, Dialer
from connector_agent.tunnels import Tunnels
from shared.errors import FAULTS
from shared.pki.tls import tunnel_client_context
from shared.protocol import MemoryBudget, Stream
from shared.tunnel.gaps import GapWatch

_LOOK: Final = 0.1


class Contextual:
    """The certificates of one identity, loaded once."""

    def __init__(self, pki: Path, name: str) -> None:
        own = tunnel_client_context(pki / "ca.pem", pki / f"{name}.pem", pki / f"{name}.key")
        self._contexts = Contexts(own, own)

    def __call__(self) -> Contexts:
        return self._contexts


def refuse(stream: Stream, head: bytes, body: bytes, end: bool) -> None:
    """Nobody pushes to the crowd."""
    stream.reset(FAULTS["target-not-exposed"].wire, refused=True)


async def attend(journal: Writer, pki: Path, host: str, port: int, names: Sequence[str]) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    gaps, budget = GapWatch(loop), MemoryBudget()
    gaps.start()
    crowd = [
        Tunnels(
            [(host, port)], Dialer(Contextual(pki, name)), refuse, lambda: {"idle": "http"},
            count=1, budget=budget, gaps=gaps,
        )
        for name in names
    ]  # fmt: skip
    for one in crowd:
        one.start()
    told = -1
    while not stopped.is_set():
        attached = sum(one.open_count for one in crowd)
        if attached != told:
            journal.write(event="crowd", at=time.monotonic(), attached=attached)
            told = attached
        try:
            await asyncio.wait_for(stopped.wait(), _LOOK)
        except TimeoutError:
            pass


def main() -> None:
    journal, pki, host, port, *names = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(attend(Writer(Path(journal)), Path(pki), host, int(port), names))


if __name__ == "__main__":
    main()
