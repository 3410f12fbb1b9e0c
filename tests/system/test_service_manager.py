"""Both programs under a service manager that hears datagrams; what a real systemd makes of it is tried by
deploy/systemd/trial.py."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.manager import Manager
from tests.system.programs import command, until

pytestmark = pytest.mark.system

WATCHDOG = 0.5
"""Seconds. Half of it is far above the lag of a loop on a busy machine."""


async def test_a_relay_and_a_connector_tell_how_they_are(site, target, tmp_path) -> None:
    site.expose(target)
    folders = {name: tmp_path / name for name in ("for-relay", "for-connector")}
    for folder in folders.values():
        folder.mkdir()
    with Manager(folders["for-relay"]) as over_relay, Manager(folders["for-connector"]) as over_connector:
        watchdog = {"WATCHDOG_USEC": str(round(WATCHDOG * 1e6))}
        connector = site.launch_connector("c1", **over_connector.environment(), **watchdog)
        await until(lambda: over_connector.heard("READY=1"), "the connector's word")
        await until(
            lambda: "no tunnel is up (connection-refused at" in over_connector.status, "the cause in its status"
        )
        relay = site.launch_relay(**over_relay.environment(), **watchdog)
        await until(lambda: over_relay.heard("READY=1"), "the relay's word")
        answer = await site.push(body=b"1")  # whoever was told READY may push at once
        assert answer.status in {200, 503}
        await until(
            lambda: over_relay.status == "2 tunnels of 1 connector attached, 1 route green", "the relay's status"
        )
        await until(lambda: over_connector.status == "2 tunnels up, 1 target", "the connector's status")
        for manager in (over_relay, over_connector):
            await watchdog_is_fed(manager)
        for program, manager in ((relay, over_relay), (connector, over_connector)):
            ready = manager.heard("READY=1")
            program.signal(signal.SIGHUP)
            await has_reloaded(manager, ready)
            assert manager.heard("RELOADING=1") == manager.heard("MONOTONIC_USEC=") == 1
        await connector.stop()
        await until(lambda: over_relay.status.endswith("1 of 1 route red: acme/all"), "the red route")
        await relay.stop()
        for manager in (over_relay, over_connector):
            assert manager.heard("STOPPING=1") == 1
            assert not manager.said[-1][0].startswith("READY=1")


async def watchdog_is_fed(manager: Manager) -> None:
    until_now = manager.heard("WATCHDOG=1")
    await until(lambda: manager.heard("WATCHDOG=1") > until_now + 1, "two words for the watchdog")


async def has_reloaded(manager: Manager, ready: int) -> None:
    await until(lambda: manager.heard("READY=1") > ready, "the end of a reload")


async def test_a_new_process_speaks_once_it_is_the_main_one(site, target, tmp_path) -> None:
    """systemd believes the main process alone, and complains in the journal about any other that speaks."""
    site.expose(target)
    with Manager(tmp_path) as systemd:
        old = site.launch_relay(**systemd.environment(), WATCHDOG_USEC=str(round(WATCHDOG * 1e6)))
        await site.relay_is_ready()
        await site.start_connector()
        argv = (command("cloud-relay"), "upgrade", "--config", str(site.folder / "relay.yaml"))
        upgrade = site.run("upgrade", *argv)
        await until(lambda: systemd.heard("MAINPID=") and not upgrade.is_running and not old.is_running, "the upgrade")
        assert upgrade.exit_code == 0
        new = int(next(line for message in systemd.said for line in message if line.startswith("MAINPID="))[8:])
        try:
            await watchdog_is_fed(systemd)
            named = systemd.said.index([f"MAINPID={new}"])
            assert [message[0] for message in systemd.said[:named]].count("READY=1") == 1
            assert systemd.said[named + 1][0] == "READY=1"
            assert not any("STOPPING=1" in message for message in systemd.said)
            os.kill(new, signal.SIGTERM)
            await until(lambda: systemd.heard("STOPPING=1"), "the end of the new process")
            await until(lambda: not Path(f"/proc/{new}").exists(), "its end")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(new, signal.SIGKILL)
