"""The relay is lost with a thousand connectors attached: they come back at the pace that it can take."""

from __future__ import annotations

from typing import Final

from chaos.configs import CONNECTORS
from chaos.crowd_site import CROWD, CrowdSite
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.load import Load
from chaos.pushes import TENANTS
from chaos.site import TUNNELS
from chaos.stage import Stage
from chaos.terms import Terms
from cloud_relay.tunnels import ATTACH_RATE

SPREAD: Final = (CROWD + TUNNELS * len(CONNECTORS)) / ATTACH_RATE
"""Seconds over which the relay asks them to spread."""


async def restart_with_crowd(stage: Stage, parameters: Parameters) -> None:
    site = stage.site
    assert isinstance(site, CrowdSite)
    stage.begins(f"SIGKILL to the relay, with {CROWD} more connectors attached")
    await site.relay.kill()
    await stage.lasts(seconds_of(parameters))
    site.launch_relay()
    back = await site.relay_listens()
    stage.ends("the relay listens again", back)
    stage.figures["all_back_s"] = round(await site.crowd_is_back() - back, 2)
    stage.note("all connectors are attached")


def _crowded(_: Parameters) -> Terms:
    """Until the crowd is in, the relay is busy with it, and reads later what senders have sent."""
    return Terms(
        hurts=frozenset(TENANTS), is_silent=True, holds_up=True, recovery=SPREAD, aftermath=3 * SPREAD, delay=SPREAD
    )


FAULTS: Final = (
    Fault(
        "kill-relay-crowd", f"SIGKILL of the relay with {CROWD:,} connectors attached, and a new start",
        restart_with_crowd, _crowded, span(0.2, 2.0), weight=0.1, site=CrowdSite,
        load=Load(rate=10.0, largest=8192),
        seen="As without the crowd; connectors come back over the spread that the relay asked for.",
    ),
)  # fmt: skip
