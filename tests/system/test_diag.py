"""`diag` of both programs: whoever helps gets what is needed, and nothing that is secret."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.system.kit import Site
from tests.system.programs import command

pytestmark = pytest.mark.system

ENTRIES = {
    "README.txt", "config.json", "checks.json", "versions.json", "process.json", "status.json", "tasks.txt",
    "metrics.txt", "recent.jsonl",
}  # fmt: skip


async def diag(site: Site, program: str, config: str, *arguments: str) -> dict[str, str]:
    """The texts in an archive, by name."""
    path = site.folder / f"{config}.tar.gz"
    path.unlink(missing_ok=True)
    options = ("--config", str(site.folder / f"{config}.yaml"), "--output", str(path), *arguments)
    ran = site.run(f"{config}-diag", command(program), "diag", *options)
    assert await ran.ended() == 0, ran.err
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        found = {Path(entry.name).name: archive.extractfile(entry) for entry in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


def secret(site: Site, name: str, text: str) -> str:
    path = site.folder / name
    path.touch(mode=0o600)
    path.write_text(text)
    return name


async def test_no_secret_is_in_it(site: Site, target):
    injected, chosen = "Basic injected-planted", "chosen-planted"
    headers = {"set_from_files": {"Authorization": secret(site, "auth", injected)}, "set": {"X-Scope-OrgID": chosen}}
    site.expose(target, headers=headers, probe={"kind": "tcp", "interval": "1h"})
    dead = free_port()
    site.expose(f"http://127.0.0.1:{dead}", "dead")
    site.relay_config["tenants"]["acme"]["routes"].append(site.make_route("dead", "/dead", "dead"))
    await site.start()
    sent = {"X-Api-Key": "header-planted", "Cookie": "cookie-planted"}
    for path in ("/push?key=query-planted", "/dead?key=query-planted"):
        await site.push(path, b"payload-planted", headers=sent)
    await site.push(authorization="Bearer wrong-planted")
    keys = [path.read_text().split("\n")[1] for path in site.pki.glob("*.key")]
    assert len(keys) > 3
    planted = [
        injected, chosen, "planted", site.password, site.token, site.basic.split()[1], "BEGIN EC PRIVATE",
        "BEGIN PRIVATE", *keys, *hashes(site),
    ]  # fmt: skip

    connector = await diag(site, "connector-agent", "c1")
    relay = await diag(site, "cloud-relay", "relay")
    for found in (connector, relay):
        assert found.keys() == ENTRIES
        text = "\n".join(found.values())
        assert [one for one in planted if one in text] == []
        assert json.loads(found["process.json"])["open_files"] > 5
        assert json.loads(found["versions.json"])["libraries"]["aiohttp"]
        assert "\ntask reload watcher\n" in found["tasks.txt"]
    # What it is for.
    config = json.loads(connector["config.json"])
    assert config["targets"][0]["headers"]["set"] == {"X-Scope-OrgID": "***"}
    assert config["targets"][0]["headers"]["set_from_files"]["Authorization"].endswith("/auth")
    recent = [json.loads(line) for line in connector["recent.jsonl"].splitlines()]
    assert any(line.get("code") == "target-unreachable" and str(dead) in line["detail"] for line in recent)
    assert "qanat_connector_tunnels 2.0" in connector["metrics.txt"]
    checks = json.loads(connector["checks.json"])
    failed = [one["subject"].partition(",")[0] for one in checks["checks"] if one["result"] == "failed"]
    assert failed == ["target dead"]
    status = json.loads(relay["status.json"])
    assert len(status["tenants"][0]["locations"][0]["connectors"][0]["tunnels"]) == 2
    # The relay knows no address of the data center.
    for address in (f"127.0.0.1:{target.port}", f"127.0.0.1:{dead}"):
        assert address in connector["config.json"]
        assert all(address not in text for text in relay.values())


def hashes(site: Site) -> list[str]:
    """Those in the relay's config."""
    s4, ibp = site.relay_config["tenants"]["acme"]["senders"]
    return [s4["basic"]["password_hash"], ibp["bearer"]["token_hash"]]


async def test_while_nothing_runs(site: Site):
    site.expose(f"http://127.0.0.1:{free_port()}")
    for program, name in (("cloud-relay", "relay"), ("connector-agent", "c1")):
        site.write(name)
        found = await diag(site, program, name, "--no-checks")
        assert "status.json: only the running" in found["missing.txt"]
        assert "there is no socket" in found["missing.txt"]
        assert {"config.json", "process.json", "versions.json"} <= found.keys()
    # Not even a config that can be used is needed.
    (site.folder / "c1.yaml").write_text("state_dir: x\ntargets: [{name: a, url: 'https://user:planted@host'}]\n")
    found = await diag(site, "connector-agent", "c1")
    assert "c1.yaml:2: targets[0].url" in found["config-problems.txt"]
    assert "planted" not in "".join(found.values())
