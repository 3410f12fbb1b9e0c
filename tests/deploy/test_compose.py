"""The files behind docker-compose.yml: what its setup writes is a config that the programs take."""

from __future__ import annotations

import runpy
from pathlib import Path

import yaml

from cloud_relay.config import RelayConfig, find_flaws
from shared.config import load_config
from shared.pki import tls

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "deploy" / "compose" / "setup.py"))["main"]


def test_the_relay_takes_what_the_setup_writes(tmp_path):
    assert SETUP([str(tmp_path)]) == 0
    config = load_config(tmp_path / "relay.yaml", RelayConfig)
    assert find_flaws(config) == []
    tls.tunnel_server_context(tmp_path / "relay.pem", tmp_path / "relay.key", tmp_path / "ca.pem")


def test_a_second_run_changes_nothing(tmp_path):
    assert SETUP([str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert before
    assert SETUP([str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_services_are_what_the_header_says():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"setup", "relay", "connector", "target"}
    assert not set(services["relay"]["networks"]) & set(services["target"]["networks"])
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).is_dir()
    assert (ROOT / services["relay"]["build"]["dockerfile"]).is_file()
