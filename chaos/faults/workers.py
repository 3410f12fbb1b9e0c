"""A relay of three workers loses one of them, or has one that stands still, or loses the process above them."""

from __future__ import annotations

import os
import signal
from typing import Final

from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.faults.processes import AWAY
from chaos.pushes import TENANTS
from chaos.stage import Stage
from chaos.terms import Terms
from chaos.workers_site import WORKERS, WorkersSite

ALL: Final = frozenset(TENANTS)
_PLACES: Final = tuple(str(number) for number in range(WORKERS))

_UNTIL_ANOTHER: Final = 2.0
"""Seconds until another process has come into a worker's place: pushes go on meanwhile."""


def _site_of(stage: Stage) -> WorkersSite:
    assert isinstance(stage.site, WorkersSite)
    return stage.site


async def kill_worker(stage: Stage, parameters: Parameters) -> None:
    """The one of that age: the supervisor starts another by itself."""
    pid = _site_of(stage).workers[int(parameters["victim"])]
    stage.begins(f"SIGKILL to worker process {pid}")
    os.kill(pid, signal.SIGKILL)
    stage.ends("it is dead")
    await stage.lasts(_UNTIL_ANOTHER)


async def stop_worker(stage: Stage, parameters: Parameters) -> None:
    """SIGSTOP, and SIGCONT before the supervisor gives it up."""
    pid = _site_of(stage).workers[int(parameters["victim"])]
    stage.begins(f"SIGSTOP to worker process {pid}")
    os.kill(pid, signal.SIGSTOP)
    try:
        await stage.lasts(seconds_of(parameters))
    finally:
        os.kill(pid, signal.SIGCONT)
    stage.ends("SIGCONT")


async def kill_supervisor(stage: Stage, parameters: Parameters) -> None:
    """Its workers end by themselves, and the relay is started anew."""
    site = _site_of(stage)
    stage.begins("SIGKILL to the supervisor")
    os.kill(site.relay.pid, signal.SIGKILL)
    await stage.lasts(seconds_of(parameters))
    site.launch_relay()
    stage.ends("the relay listens again", await site.relay_listens())


def _worker_lost(_: Parameters) -> Terms:
    """Whoever was connected to it is cut off; pushes on their way through its tunnels may have arrived."""
    return Terms(hurts=ALL, codes=AWAY, is_silent=True)


def _worker_stopped(_: Parameters) -> Terms:
    return Terms(hurts=ALL, codes=AWAY | {"deadline-exceeded"}, is_silent=True, holds_up=True)


def _relay_away(_: Parameters) -> Terms:
    return Terms(hurts=ALL, is_silent=True, holds_up=True)


FAULTS: Final = (
    Fault(
        "kill-worker", "SIGKILL of one of three workers", kill_worker, _worker_lost,
        lambda source: {"victim": source.choice(_PLACES)}, weight=0.5, site=WorkersSite,
        seen="The connections of a third of the senders are cut. New ones are the other workers', at once.",
    ),
    Fault(
        "stop-worker", "SIGSTOP of one of three workers, and SIGCONT", stop_worker, _worker_stopped,
        span(0.2, 8.0, victim=_PLACES), weight=0.5, site=WorkersSite,
        seen=(
            "Pushes of a third of the senders wait. Those of the others that crossed it may get 502 `tunnel-lost`, and "
            "go by other workers' tunnels from the second second on."
        ),
    ),
    Fault(
        "kill-supervisor", "SIGKILL of the process above the workers, and a new start", kill_supervisor, _relay_away,
        span(0.05, 2.5), weight=0.25, site=WorkersSite, seen="As where the relay is killed.",
    ),
)  # fmt: skip
