"""Reloading: what changed counts at once, what is bad counts not at all, and nothing in flight notices."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.system.kit import Site
from tests.system.load import Load
from tests.system.programs import Program, until
from tests.system.targets import open_target

pytestmark = pytest.mark.system


def said(program: Program, event: str) -> list[dict[str, Any]]:
    return [line for line in program.log_lines if line["event"] == event]


async def reloaded(site: Site, name: str, *, by: str, event: str = "config reloaded") -> dict[str, Any]:
    """Writes the config, and waits for what the program says to it."""
    program = site.relay if name == "relay" else site.connectors[name]
    before = len(said(program, event))
    site.write(name)
    if by == "SIGHUP":
        program.signal(signal.SIGHUP)
    await until(lambda: len(said(program, event)) > before, f"{event!r} in the log of {name}")
    return said(program, event)[-1]


@pytest.mark.parametrize("by", ["SIGHUP", "file"])
async def test_routes_come_and_go(site, target, by):
    site.expose(target)
    routes = site.relay_config["tenants"]["acme"]["routes"]
    routes[:] = [site.make_route("first", "/first")]
    await site.start()
    assert (await site.push("/second")).fault == "no-such-route"
    slow = asyncio.Task(site.push("/first/slow"))
    routes.append(site.make_route("second", "/second"))
    line = await reloaded(site, "relay", by=by)
    assert "route acme/second added" in line["changes"]
    assert (await site.push("/second")).status == 200
    del routes[0]
    line = await reloaded(site, "relay", by=by)
    assert "route acme/first removed" in line["changes"]
    assert (await site.push("/first")).fault == "no-such-route"
    assert (await slow).status == 200
    assert (await site.status())["reload"]["taken"] is True


async def test_a_bad_file_leaves_the_old_in_force(site, target):
    site.expose(target)
    await site.start()
    site.relay_config["tenants"]["acme"]["routes"].append(site.make_route("again", "/"))
    line = await reloaded(site, "relay", by="file", event="config not taken; the old one stays in force")
    assert "already belongs to route acme/all" in str(line["problems"])
    site.connector_config()["targets"] = [{"name": "main", "url": "ftp://nowhere"}]
    line = await reloaded(site, "c1", by="SIGHUP", event="config not taken; the old one stays in force")
    assert "c1.yaml:" in str(line["problems"])
    assert (await site.push()).status == 200
    assert (await site.status())["reload"]["taken"] is False


async def test_what_needs_a_restart_is_refused_by_name(site, target):
    site.expose(target)
    await site.start()
    event = "config not taken; the old one stays in force"
    site.relay_config["tunnel"]["listen"] = "127.0.0.1:1"
    site.relay_config["state_dir"] = "elsewhere"
    line = await reloaded(site, "relay", by="file", event=event)
    assert "tunnel.listen changes only with a restart" in line["problems"]
    assert "state_dir changes only with a restart" in line["problems"]
    site.connector_config()["tunnels"] = 3
    line = await reloaded(site, "c1", by="SIGHUP", event=event)
    assert "tunnels changes only with a restart" in line["problems"]
    assert (await site.push()).status == 200


async def test_a_target_moves_under_load(site, target):
    """The connector's target gets another address: not one push fails, and soon all go there."""
    site.expose(target)
    await site.start()
    load = Load(site)
    async with open_target() as other, load.running():
        await until(lambda: len(load.acknowledged) > 100, "pushes")
        site.connector_config()["targets"][0]["url"] = other.url
        await reloaded(site, "c1", by="file")
        already = len(other.received)
        await until(lambda: len(other.received) > already + 100, "pushes at the other target")
        at_old = len(target.received)
        await asyncio.sleep(0.3)
        assert len(target.received) == at_old
    assert load.failures == []
    assert load.acknowledged <= target.ids | other.ids


async def test_targets_are_announced(site, target):
    """A target that is added is known to the relay at once, and one that is gone turns its route red."""
    site.expose(target)
    site.relay_config["tenants"]["acme"]["routes"].append(site.make_route("new", "/new", "new", hold="100ms"))
    await site.start()
    assert (await site.push("/new")).fault == "no-connector"
    config = site.connector_config()
    config["targets"].append(config["targets"][0] | {"name": "new"})
    await reloaded(site, "c1", by="SIGHUP")

    async def is_there() -> bool:
        return bool((await site.push("/new")).status == 200)

    await until(is_there, "the new target")
    del config["targets"][1]
    await reloaded(site, "c1", by="SIGHUP")

    async def is_gone() -> bool:
        return bool((await site.push("/new")).fault in ("no-connector", "unknown-target"))

    await until(is_gone, "the end of the target")
    assert (await site.push()).status == 200


async def test_an_injected_secret_changes(site, target):
    secret = site.folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("Bearer one\n")
    site.expose(target)["headers"] = {"set_from_files": {"Authorization": "secret"}}
    await site.start()
    assert (await site.push()).status == 200
    assert target.received[-1].headers["authorization"] == "Bearer one"
    # As Kubernetes and most tools do it: a new file takes the old one's place.
    fresh = site.folder / "secret.new"
    fresh.touch(mode=0o600)
    fresh.write_text("Bearer two\n")
    os.replace(fresh, secret)

    async def is_new() -> bool:
        await site.push()
        return bool(target.received[-1].headers["authorization"] == "Bearer two")

    await until(is_new, "the new secret at the target")
    assert "Bearer" not in site.connector.err + site.connector.out
