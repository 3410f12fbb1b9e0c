"""Lifetimes of seconds under steady pushes: renewals, roll-overs, a rollback, revocations, and who slept through it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Final, Self

import aiohttp
import pytest
import pytest_asyncio

from shared.tasks import cancel, spawn
from tests.system.managed import ManagedSite, connector_name
from tests.system.programs import until
from tests.system.targets import Target

pytestmark = pytest.mark.system

SECONDS: Final = 60.0
NAMES: Final = ("c1", "c2", "c3")
OTHERS: Final = tuple(f"x{number}" for number in range(1, 5))
"""Connectors that are revoked and blocked meanwhile: they expose another target."""


@pytest_asyncio.fixture
async def site(pki, tmp_path_factory, target: Target):
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as made:
        made.expose(target)
        yield made


class Pushing:
    """Steady pushes to the healthy connectors."""

    def __init__(self, site: ManagedSite) -> None:
        self.site = site
        self.outcomes: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = spawn(self._push(), "pushes")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await cancel(self._task)

    async def _push(self) -> None:
        while True:
            try:
                answer = await self.site.push()
            except (aiohttp.ClientError, TimeoutError) as error:
                self.outcomes[repr(error)] += 1
            else:
                self.outcomes[answer.fault or str(answer.status)] += 1
            await asyncio.sleep(0.02)


async def _roll_over(site: ManagedSite, *, back: bool) -> None:
    generation = (await site.ask("ca-rotate"))["generations"][0]["generation"]
    if back:
        await until(lambda: _is_at(site, "switched"), "the switch")
        await site.ask("ca-rollback")
    await until(lambda: _is_at(site, "steady"), "the end of a roll-over", 40)
    now = (await site.ask("ca-status"))["generations"][0]["generation"]
    assert now == generation if back else now > generation


async def _is_at(site: ManagedSite, stage: str) -> bool:
    return bool((await site.ask("ca-status"))["stage"] == stage)


async def _end_others(site: ManagedSite) -> list[float]:
    """Revoke and block the others, a dozen times in all; how long each took until its tunnels were gone."""
    times = []
    for turn in range(3):
        for name in OTHERS:
            full = connector_name(name)
            await site.ask("connectors-unblock", connector=full)
            await site.invite(name)
            await site.connector_says(name, "enroll", "--token-file", f"{name}.token", "--replace")
            await site.connectors[name].stop()
            site.launch_connector(name)
            await site.fully_connected(name)
            started = time.monotonic()
            if turn % 2:
                await site.ask("connectors-block", connector=full)
            else:
                await site.ask("certs-revoke", scope="connector", name=full)
            asked = time.monotonic() - started
            await until(partial(_is_gone, site, full), f"the end of {full}", 5)
            times.append(max(0.0, time.monotonic() - started - asked))
    return times


async def _is_gone(site: ManagedSite, name: str) -> bool:
    return bool((await site.ask("connectors-show", connector=name))["tunnels"] == 0)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_minute_of_everything_with_no_push_lost(site, target):
    site.lifetimes(leaf_lifetime="4s")
    await site.init()
    await site.start_relay()
    for name in (*NAMES, *OTHERS):
        await site.invite(name)
        config = site.connector_config(name)
        if name in OTHERS:
            config["targets"] = [{**config["targets"][0], "name": "other"}]
        site.launch_connector(name)
    for name in (*NAMES, *OTHERS):
        await site.fully_connected(name)
    started = time.monotonic()
    async with Pushing(site) as pushing:
        times, _ = await asyncio.gather(_end_others(site), _roll_overs(site))
        await asyncio.sleep(max(0.0, SECONDS - (time.monotonic() - started)))
    assert set(pushing.outcomes) == {"200"}, pushing.outcomes
    assert len(times) == 12
    assert max(times) < 1.0, times
    events = (await site.ask("events"))["events"]
    for name in NAMES:
        renewals = [one for one in events if one["kind"] == "issued" and one["connector"] == name]
        assert len(renewals) >= 30 * (time.monotonic() - started) / 61, (name, len(renewals))
    steps = Counter(one["step"] for one in events if one["kind"] == "roll-over")
    assert steps["rolled-back"] == 1
    assert steps["retired"] == 3


async def _roll_overs(site: ManagedSite) -> None:
    await _roll_over(site, back=False)
    await _roll_over(site, back=True)
    await _roll_over(site, back=False)


async def test_who_slept_through_its_end_and_through_a_roll_over_comes_back(site, target):
    site.lifetimes(leaf_lifetime="4s")
    await site.init()
    await site.start_relay()
    await site.invite()
    await site.start_connector()
    await site.connector.kill()
    await asyncio.sleep(4.5)
    await _roll_over(site, back=False)
    assert (await site.ask("connectors-show", connector=connector_name("c1")))["not_after"] is None
    site.launch_connector()
    await site.fully_connected(generation=2)
    assert (await site.push(body=b"awake")).status == 200
    assert target.received[-1].body == b"awake"


async def test_revoked_while_it_slept(site):
    await site.init()
    await site.start_relay()
    await site.invite()
    await site.start_connector()
    await site.ask("certs-revoke", scope="connector", name=connector_name("c1"))
    await until(lambda: "certificate-revoked" in site.connector.err, "the connector's own log to say so")
    await site.relay.kill()
    await site.start_relay()
    assert (await site.push()).fault == "no-connector"


async def test_the_relays_own_certificate_changes_under_pushes(site):
    await site.init()
    await site.start_relay()
    await site.invite()
    await site.start_connector()
    async with Pushing(site) as pushing:
        done = await site.relay_says("certs", "rotate")
        assert done["not_after"] >= done["before"]
        await site.relay_says("certs", "rotate", connector_name("c1"), "--within", "0.1")
        await asyncio.sleep(1)
    assert set(pushing.outcomes) == {"200"}
