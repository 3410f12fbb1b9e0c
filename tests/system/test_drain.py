"""Ending in good order: what is in flight finishes, what is new goes elsewhere, and a second signal insists."""

from __future__ import annotations

import asyncio
import functools
import signal
import time

import aiohttp
import pytest

from tests.system.load import Load
from tests.system.programs import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]


async def test_restarting_one_of_two_connectors_loses_nothing(site, target, record_property):
    site.expose(target)
    site.connector_config("c2")
    await site.start()
    await site.start_connector("c2")
    load = Load(site)
    async with load.running():
        for name in ("c1", "c2"):
            wanted = len(load.acknowledged) + 100
            await until(functools.partial(load.has_acknowledged, wanted), "pushes")
            assert await site.connectors[name].stop() == 0
            await site.start_connector(name)
    record_property("restarts of one of two connectors under load: pushes, failures", [
        len(load.acknowledged), load.failures_by_cause])  # fmt: skip
    assert load.failures == []
    assert not load.given_up
    assert load.acknowledged <= target.ids
    assert len(target.received) == len(load.attempts)


async def test_the_connector_finishes_what_it_has(site, target):
    site.expose(target)
    site.route["hold"] = "200ms"
    await site.start()
    slow = [asyncio.Task(site.push("/slow/1.5")) for _ in range(20)]
    await until(lambda: len(target.received) == 20, "pushes in flight")
    site.connector.signal(signal.SIGTERM)
    await until(lambda: "draining" in site.connector.err, "the drain")

    async def is_refused() -> bool:
        return bool((await site.push()).fault == "no-connector")

    await until(is_refused, "no new push gets through")
    assert [answer.status for answer in await asyncio.gather(*slow)] == [200] * 20
    assert await site.connector.ended(5) == 0


async def test_the_relay_finishes_what_it_has(site, target):
    site.expose(target)
    await site.start()
    slow = [asyncio.Task(site.push("/slow/1.5")) for _ in range(20)]
    await until(lambda: len(target.received) == 20, "pushes in flight")
    site.relay.signal(signal.SIGTERM)
    await until(lambda: "draining" in site.relay.err, "the drain")
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{site.ports['plain']}/"):
            pass
    for answer in await asyncio.gather(*slow):
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"
    assert await site.relay.ended(5) == 0
    # The connector keeps looking, and finds the next one.
    await site.start_relay()
    await site.connector_is_ready()
    assert (await site.push()).status == 200


async def test_the_delay_lets_the_load_balancer_notice(site, target):
    site.expose(target)
    site.relay_config["drain"] = {"delay": "1500ms"}
    await site.start()
    site.relay.signal(signal.SIGTERM)
    await until(lambda: "draining" in site.relay.err, "the drain")
    assert await site.observe(site.relay, "observe") is None
    answer = await site.push()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert await site.relay.ended(10) == 0


@pytest.mark.parametrize("which", ["relay", "connector"])
async def test_a_second_signal_insists(site, target, which):
    site.expose(target)
    await site.start()
    stuck = asyncio.Task(site.push("/hang"))
    await until(lambda: target.begun == 1, "a push in flight")
    program = site.relay if which == "relay" else site.connector
    program.signal(signal.SIGTERM)
    await until(lambda: "draining" in program.err, "the drain")
    await asyncio.sleep(0.3)
    assert program.is_running
    began = time.monotonic()
    program.signal(signal.SIGTERM)
    assert await program.ended(5) == 0
    assert time.monotonic() - began < 3
    if which == "relay":
        with pytest.raises(aiohttp.ClientError):
            await stuck
    else:
        answer = await stuck
        assert answer.status in (502, 503)
        # The target has it, so what is said must leave open whether it was delivered.
        assert answer.fault in ("connector-draining", "tunnel-lost", "target-lost")


async def test_nothing_in_flight_ends_at_once(site, target):
    site.expose(target)
    await site.start()
    assert (await site.push()).status == 200
    for program in (site.connector, site.relay):
        began = time.monotonic()
        assert await program.stop() == 0
        assert time.monotonic() - began < 4
        assert not [line for line in program.log_lines if line["level"] == "error"], program.err
