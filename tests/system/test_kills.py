"""kill -9 under load: pushes flow again at once when what was killed is back, and an acknowledgement is never a lie."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from tests.system.kit import Site
from tests.system.load import Load
from tests.system.programs import listens, until
from tests.system.targets import Target, open_target

pytestmark = [pytest.mark.system, pytest.mark.timing, pytest.mark.timeout(120)]

BAR = 1.0
"""Seconds from being back until pushes flow (issue)."""


class Outage(list[float]):
    """What one killing came to: when it was killed, back, and when the first push was acknowledged after that."""

    @property
    def recovery(self) -> float:
        _, back, first = self
        return max(0.0, first - back)


async def kill_and_restart(site: Site, load: Load, victim: str, away: float) -> Outage:
    program = site.relay if victim == "relay" else site.connector
    killed = time.monotonic()
    await program.kill()
    await asyncio.sleep(away)
    if victim == "relay":
        site.launch_relay()
        await until(lambda: listens(site.ports["tls"]), "the relay listens")
    else:
        program = site.launch_connector()
        await until(lambda: site.observe(program, "c1", "/healthz"), "the connector is up")
    back = time.monotonic()
    # A connector can have its first push before anybody has seen that it is up: counted from its launch.
    since = back if victim == "relay" else program.started_at
    first = await until(lambda: load.first_acknowledged(since), "a push after the outage")
    return Outage([killed, back, first])


def assert_nothing_is_lost(load: Load, target: Target, outages: list[Outage], victim: str) -> None:
    assert not load.given_up
    lost = load.acknowledged - target.ids
    assert not lost, f"acknowledged, and not at the target: {sorted(lost)[:10]}"
    # While the relay is away nobody can answer. A connection that it held is noticed as dead a little later.
    silent = tuple((killed, back + 0.1) for killed, back, _ in outages) if victim == "relay" else ()
    load.assert_honest(silent=silent)


@pytest.mark.parametrize("victim", ["connector", "relay"])
async def test_three_times_in_a_row(site, target, victim, record_property):
    site.expose(target)
    await site.start()
    load = Load(site)
    outages = []
    async with load.running():
        await until(lambda: len(load.acknowledged) > 200, "pushes")
        for away in (0.1, 0.5, 2.0):
            outages.append(await kill_and_restart(site, load, victim, away))
            await asyncio.sleep(0.5)
    assert_nothing_is_lost(load, target, outages, victim)
    recoveries = [outage.recovery for outage in outages]
    record_property(f"recovery after kill -9 of the {victim}, s", [round(one, 2) for one in recoveries])
    record_property(f"pushes, and tries that failed ({victim})", [len(load.acknowledged), load.failures_by_cause])
    assert statistics.median(recoveries) <= BAR
    # The connector looks for the relay once a second at the latest, and the handshakes come on top.
    assert max(recoveries) <= 2 * BAR


@pytest.mark.slow
async def test_after_half_a_minute(pki, tmp_path_factory, record_property):
    """Both cases at once, each at a site of its own."""

    async def play(victim: str) -> None:
        async with open_target() as target, Site(tmp_path_factory.mktemp("site"), pki) as site:
            site.expose(target)
            await site.start()
            load = Load(site)
            async with load.running():
                await until(lambda: len(load.acknowledged) > 100, "pushes")
                outage = await kill_and_restart(site, load, victim, 30.0)
                await asyncio.sleep(1.0)
            assert_nothing_is_lost(load, target, [outage], victim)
            record_property(f"recovery after 30 s without the {victim}, s", round(outage.recovery, 2))
            assert outage.recovery <= 1.5 * BAR

    await asyncio.gather(play("connector"), play("relay"))
