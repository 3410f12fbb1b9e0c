"""Wall clocks that jump: 40 days on, or a day back, under a running program or before one starts."""

from __future__ import annotations

import asyncio
from typing import Final

from chaos.configs import CONNECTORS, GLOBEX
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.faults.processes import AWAY
from chaos.pushes import TENANTS
from chaos.site import RELAY, Site, why_no_clock
from chaos.stage import Stage
from chaos.terms import Terms

ALL: Final = frozenset(TENANTS)
_STEPS: Final = ("+40d", "-1d")
_RIGHT: Final = "+0"
_REFUSED: Final = 16.0
"""Seconds until the next dial where an operator has to do something first, and for the dial."""

_TAKES: Final = 1.2
"""Seconds until a program sees what its clock's file says."""


async def prepare(site: Site, parameters: Parameters) -> None:
    """The victim runs by a clock that can be set."""
    await _restart(site, str(parameters["victim"]), _RIGHT)


async def restore(site: Site, parameters: Parameters) -> None:
    """The victim runs by the machine's clock."""
    await _restart(site, str(parameters["victim"]), None)


async def _restart(site: Site, victim: str, clock: str | None) -> None:
    site.set_clock(victim, clock)
    await site.programs[victim].kill()
    if victim == RELAY:
        site.launch_relay()
        await site.relay_listens()
    else:
        site.launch_connector(victim)
        await site.connector_is_up(victim)
    await site.comes_to_rest(20.0)


async def jump(stage: Stage, parameters: Parameters) -> None:
    site, victim, step = stage.site, str(parameters["victim"]), str(parameters["step"])
    stage.begins(f"the clock of {victim} jumps by {step}")
    site.set_clock(victim, step)
    await stage.lasts(_TAKES + seconds_of(parameters))
    site.set_clock(victim, _RIGHT)
    stage.note("it jumps back")
    await asyncio.sleep(_TAKES)
    stage.ends("it is right again")


async def start_wrong(stage: Stage, parameters: Parameters) -> None:
    """A connector is killed, and starts while its clock is wrong: by that clock no relay's certificate is good."""
    site, victim, step = stage.site, str(parameters["victim"]), str(parameters["step"])
    stage.begins(f"SIGKILL to {victim}, whose clock then is wrong by {step}")
    await site.programs[victim].kill()
    site.set_clock(victim, step)
    site.launch_connector(victim)
    await site.connector_is_up(victim)
    await stage.lasts(seconds_of(parameters))
    site.set_clock(victim, _RIGHT)
    stage.ends("the clock is set right")


def _unhurt(_: Parameters) -> Terms:
    return Terms()


def _restarted(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY, recovery=_REFUSED, aftermath=_REFUSED)


FAULTS: Final = (
    Fault(
        "clock-jumps", "a wall clock jumps 40 days on or a day back, and back again, under a running program", jump,
        _unhurt, span(1.0, 4.0, victim=(RELAY, *CONNECTORS), step=_STEPS), why_no_clock, weight=0.5,
        prepare=prepare, restore=restore,
        seen=(
            "Nothing. The log says that the clock is wrong; certificates are judged and renewed by the "
            "relay's clock and monotonic time."
        ),
    ),
    Fault(
        "clock-wrong-at-start", "a location's only connector is killed, and starts with a wall clock that is wrong",
        start_wrong, _restarted, span(0.5, 2.0, victim=("x1",), step=_STEPS), why_no_clock, weight=0.25,
        prepare=prepare, restore=restore,
        seen=(
            "503 `no-connector` until the clock is set: by a clock that is wrong from the start no "
            "certificate can be trusted. The connector says so, and tries every 15 s."
        ),
    ),
)  # fmt: skip
