"""`cloud-relay check --live` on relays with faults: one failure for each, with a remedy, and none for what is well."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cloud_relay.cli_check import run_checks
from cloud_relay.config import RelayConfig
from shared.config import load_config
from shared.pki import files, issue
from shared.prechecks import Precheck, Result
from tests.support.middlebox import inspecting
from tests.support.ports import free_port
from tests.system.kit import LOCATION, TENANT, Site
from tests.system.managed import ManagedSite
from tests.system.programs import command
from tests.system.test_refused_connectors import issuing_authority

pytestmark = pytest.mark.system


@pytest_asyncio.fixture
async def site(pki, tmp_path_factory):
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as made:
        yield made


async def check(site: Site) -> list[Precheck]:
    """The lines, as the command has them, without another process."""
    path = site.folder / "relay.yaml"
    return await asyncio.to_thread(run_checks, path, load_config(path, RelayConfig), [])


def failures(rows: list[Precheck]) -> dict[tuple[str, str], Precheck]:
    failed = [row for row in rows if row.result is Result.FAILED]
    assert all(row.remedy and row.detail for row in failed), failed
    return {(row.subject, row.check): row for row in failed}


def results(rows: list[Precheck], subject: str) -> dict[str, str]:
    return {row.check: row.result.value for row in rows if row.subject.startswith(subject)}


def expired_ingress(site: Site) -> tuple[Path, Path]:
    authority, key = issuing_authority(site.pki), issue.new_key()
    then = datetime.now(UTC) - timedelta(hours=3)
    certificate = issue.issue_server(authority, ["old.example.com"], key.public_key(), then, timedelta(hours=1))
    pair = site.folder / "old.pem", site.folder / "old.key"
    files.write_public(pair[0], issue.certificate_pem(certificate, *authority.chain))
    files.write_private(pair[1], issue.key_pem(key))
    return pair


async def test_a_relay_that_is_well(site: ManagedSite, target):
    site.expose(target)
    await site.init()
    await site.start_relay()
    await site.invite()
    site.launch_connector()
    await site.fully_connected()
    before = await site.status()
    rows = await check(site)
    assert failures(rows) == {}
    assert results(rows, "advertised name") == {"DNS": "ok", "TCP": "ok", "TLS": "ok", "certificate": "ok"}
    assert results(rows, "hosts") == {"localhost": "ok"}
    assert results(rows, f"tenant {TENANT}, routes") == {"all": "ok"}
    assert results(rows, f"tenant {TENANT}, senders") == {"s4": "ok", "ibp": "ok"}
    assert results(rows, f"listener 127.0.0.1:{site.ports['tls']}") == {"bound": "ok", "TCP": "ok", "TLS": "ok"}
    assert {"root", "issuing", "relay", "ingress"} <= results(rows, "certificates").keys()
    after = await site.status()
    peers = [[one["peer"] for one in found] for found in (tunnels_of(before), tunnels_of(after))]
    assert peers[0] == peers[1] != []
    assert all(line["level"] != "error" for line in site.relay.log_lines)
    # As it is typed.
    program = site.run("check", command("cloud-relay"), "check", "--live", "--config", str(site.folder / "relay.yaml"))
    assert await program.ended() == 0, program.out
    assert f"advertised name localhost:{site.ports['tunnel']}" in program.out.splitlines()
    assert "\x1b" not in program.out


def tunnels_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    (tenant,) = status["tenants"]
    return [one for connector in tenant["locations"][0]["connectors"] for one in connector["tunnels"]]


async def test_a_relay_with_faults(site: ManagedSite):
    await site.init()
    tenant = site.relay_config["tenants"][TENANT]
    tenant["routes"].append(site.make_route("foreign", "/x") | {"match": {"host": "push.example.com", "path": "/x"}})
    keys = f"http://127.0.0.1:{free_port()}/keys"
    tenant["issuers"] = [{"name": "sap", "issuer": "https://sap", "audience": "relay", "jwks_url": keys}]
    site.relay_config["ingress"][0]["tls"] = [
        site.relay_config["ingress"][0]["tls"],
        dict(zip(("certificate", "key"), map(str, expired_ingress(site)), strict=True)),
    ]
    async with inspecting(site.ports["tunnel"]) as port:
        advertised = ["relay.no-such-name.invalid:443", f"localhost:{free_port()}", f"localhost:{port}"]
        site.relay_config["tunnel"]["advertise"] += advertised
        await site.start_relay()
        disabled = await site.relay_says("senders", "disable", f"{TENANT}/ibp")
        assert disabled["disabled"]
        rows = await check(site)
    found = failures(rows)
    nobody, closed, inspected = (f"advertised name {one}" for one in advertised)
    assert found.keys() == {
        (nobody, "DNS"), (closed, "TCP"), (inspected, "certificate"), ("certificates", "ingress"),
        ("hosts that senders push to", "push.example.com"), (f"tenant {TENANT}, routes", "all"),
        (f"tenant {TENANT}, routes", "foreign"), (f"tenant {TENANT}, senders", "issuer sap"),
    }  # fmt: skip
    assert "Corp Inspection" in found[inspected, "certificate"].detail
    assert "layer 4" in found[inspected, "certificate"].remedy
    assert f"{LOCATION}/main" in found[f"tenant {TENANT}, routes", "all"].detail
    assert keys in found[f"tenant {TENANT}, senders", "issuer sap"].detail
    assert "SSLContext" not in str(rows)
    assert results(rows, f"tenant {TENANT}, senders")["ibp"] == "warning"


async def test_without_a_relay_that_runs(site: ManagedSite, target):
    """It says what it cannot know, whether the ports could be had, and what the files say."""
    await site.init()
    site.relay_config["ingress"][1]["listen"] = f"127.0.0.1:{target.port}"
    site.write("relay")
    rows = await check(site)
    ((subject, what),) = failures(rows)
    assert (subject, what) == (f"listener 127.0.0.1:{target.port} (ingress)", "bound")
    assert results(rows, "this relay")["daemon"] == "warning"
    assert results(rows, f"tenant {TENANT}, routes") == {"all": "skipped"}
    assert {"root", "issuing"} <= results(rows, "certificates").keys()  # of the state, which nobody else holds
