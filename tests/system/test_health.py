"""Health of the real path: dead targets, connectors that cannot reach them, standbys; real processes throughout."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.system.kit import TARGET, TENANT, Site, assert_honest
from tests.system.programs import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


async def route(site: Site, name: str = "all") -> dict[str, Any]:
    status = await site.status()
    return next(one for one in status["routes"] if one["route"] == name)


async def targets(site: Site) -> dict[tuple[str, str], dict[str, Any]]:
    """What the relay knows, by connector and target."""
    status = await site.status()
    connectors = status["tenants"][0]["locations"][0]["connectors"]
    return {(one["connector"], row["target"]): row for one in connectors for row in one["targets"]}


async def until_state(site: Site, state: str, name: str = "all") -> dict[str, Any]:
    async def is_so() -> dict[str, Any] | None:
        found = await route(site, name)
        return found if found["state"] == state else None

    found: dict[str, Any] = await until(is_so, f"the route {name} {state}")
    return found


async def test_a_dead_target_is_red_behind_green_tunnels_and_takes_nobody_along(site, target):
    """And comes back within seconds, without a push; the other target is served all the while."""
    config = site.expose(target, "main")
    config["probe"] = {"kind": "http", "path": "/status/204", "status": 204, "interval": "1s"}
    site.expose(f"http://127.0.0.1:{free_port()}", "dead")
    site.relay_config["probes"] = {"interval": "2s", "failing_interval": "1s"}
    site.relay_config["tenants"][TENANT]["routes"].append(site.make_route("dead", "/dead", "dead"))
    await site.start()
    await until_state(site, "green")
    dead = await until_state(site, "red", "dead")
    assert (dead["why"], dead["tunnels"]) == ("target-unreachable", 2)
    assert dead["age_s"] < 5

    report = await site.observe(site.relay, "observe")
    assert report["ready"], "the relay is not to blame"
    assert report["routes"]["red_why"]["acme/dead"]["why"] == "target-unreachable"
    answer = await site.push("/dead/x")
    assert answer.fault == "target-unreachable", "it goes there all the same, and the connector tells"
    assert_honest(answer)
    assert (await site.push()).status == 200

    await target.close()
    began = time.monotonic()
    red = await until_state(site, "red")
    assert time.monotonic() - began < 7, "two probes, one of them in its turn"
    assert red["why"] == "target-unreachable"
    shown = await site.status("c1")
    probe = next(one["probe"] for one in shown["targets"] if one["target"] == "main")
    assert probe["does"] == "GET /status/204, expecting 204"
    assert (probe["state"], probe["code"]) == ("failing", "target-unreachable")
    assert str(target.port) in probe["detail"]
    assert str(target.port) not in json.dumps([await site.status(), await site.observe(site.relay, "observe")])

    await target.open()
    began = time.monotonic()
    await until_state(site, "green")
    assert time.monotonic() - began < 5


async def test_pushes_go_to_the_connector_that_reaches_the_target(site, target):
    """One of two cannot: at first pushes are tried again, soon they do not even begin there; no sender notices."""
    site.expose(target)
    broken = site.connector_config("c2")
    broken["targets"] = [dict(one, url=f"http://127.0.0.1:{free_port()}") for one in broken["targets"]]
    await site.start()
    await site.start_connector("c2")
    statuses = [(await site.push()).status for _ in range(50)]
    assert set(statuses) == {200}

    async def is_known() -> bool:
        found = await targets(site)
        return [found[name, TARGET]["state"] for name in ("c1", "c2")] == ["green", "red"]

    await until(is_known, "c2 is known to be blind")
    assert (await route(site))["state"] == "green"
    assert (await targets(site))["c2", TARGET]["passed_over"]
    before = sum(one["pushes"] for one in (await site.status("c2"))["targets"])
    assert {(await site.push()).status for _ in range(30)} == {200}
    assert sum(one["pushes"] for one in (await site.status("c2"))["targets"]) == before

    # Each try that failed is told on both sides by the same id.
    at_relay = {(one["request_id"], one["attempt"]) for one in site.relay.access_lines if one.get("kind") == "try"}
    at_c2 = {(one["request_id"], one["attempt"]) for one in site.connectors["c2"].access_lines}
    assert at_relay
    assert at_relay <= at_c2


async def test_a_standby_takes_over_and_gives_back(site, target):
    site.expose(target)
    site.connector_config("c2")["standby"] = True
    await site.start()
    await site.start_connector("c2")
    await until_state(site, "green")
    assert {(await site.push()).status for _ in range(20)} == {200}
    assert (await site.status("c2"))["targets"][0]["pushes"] == 0
    connectors = (await site.status())["tenants"][0]["locations"][0]["connectors"]
    assert {one["connector"]: one["standby"] for one in connectors} == {"c1": False, "c2": True}

    await site.connector.kill()
    assert {(await site.push()).status for _ in range(20)} == {200}
    assert (await site.status("c2"))["targets"][0]["pushes"] >= 20
    taken = (await site.status("c2"))["targets"][0]["pushes"]

    await site.start_connector()
    assert {(await site.push()).status for _ in range(20)} == {200}
    assert (await site.status("c2"))["targets"][0]["pushes"] == taken
