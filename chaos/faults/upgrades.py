"""A relay that is replaced by what is installed now, while pushes flow: by a hand-over, or worker by worker."""

from __future__ import annotations

import time
from typing import Final

from chaos.fault import Fault, Parameters
from chaos.load import Load
from chaos.site import Site
from chaos.stage import Stage
from chaos.terms import Terms
from chaos.workers_site import WorkersSite

_BRIEF: Final = Load(idle=2.0)
"""A worker that leaves waits for idle connections: senders keep theirs for a moment only."""


async def upgrade(stage: Stage, _: Parameters) -> None:
    stage.begins("cloud-relay upgrade")
    began = time.monotonic()
    if said := await stage.site.upgrade_relay():
        stage.finds(f"the upgrade failed: {said}")
    stage.ends("the new process serves, or all of them do")
    stage.figures["upgraded_s"] = round(time.monotonic() - began, 2)


async def restart(site: Site, _: Parameters) -> None:
    """The first process, which only waits for the end of the new one, is not what the next fault is about."""
    await site.relay.kill()
    site.launch_relay()
    await site.relay_listens()
    await site.comes_to_rest(20.0)


def _unhurt(_: Parameters) -> Terms:
    return Terms()


FAULTS: Final = (
    Fault(
        "upgrade", "`cloud-relay upgrade`: a new process takes the old one's place", upgrade, _unhurt,
        weight=0.5, restore=restart, seen="Nothing.",
    ),
    Fault(
        "upgrade-workers", "the same with three workers, which are replaced one after the other", upgrade, _unhurt,
        weight=0.25, site=WorkersSite, load=_BRIEF, seen="Nothing.",
    ),
)  # fmt: skip
