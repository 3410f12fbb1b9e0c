"""What docker-compose.yml's `setup` makes: the programs take it, it fits together, and nobody else may read it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke
from shared.pki.tls import load_certificates
from tests.deploy.scenario import Scenario, services
from tests.system.programs import ROOT

pytestmark = pytest.mark.system

PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """After `setup`."""
    made = Scenario(tmp_path_factory.mktemp("compose"))
    made.setup()
    return made


@pytest.mark.parametrize("service", ["relay", "connector"])
def test_each_program_takes_its_config(folder, capsys, service):
    program, _verb, option, path = services()[service]["command"]
    check = ["check", "--offline"] if service == "connector" else ["check"]
    assert invoke(PROGRAMS[program], [*check, option, str(folder.path(path)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


@pytest.mark.parametrize("service", ["relay", "connector"])
def test_a_stop_leaves_time_to_drain(folder, service):
    config = yaml.safe_load(folder.path(services()[service]["command"][-1]).read_text())
    drain = config.get("drain", {}).get("timeout", "25s")
    assert int(services()[service]["stop_grace_period"].removesuffix("s")) > int(drain.removesuffix("s")) + 5


def test_prometheus_pushes_to_a_route_that_leads_to_the_target(folder, capsys):
    files = ROOT / "deploy" / "compose"
    (write,) = yaml.safe_load((files / "prometheus.yml").read_text())["remote_write"]
    place = folder.path("/etc/qanat/relay.yaml")
    url = folder.adapt(write["url"])
    assert invoke(PROGRAMS["cloud-relay"], ["routes", "test", "POST", url, "--config", str(place), "--json"]) == 0
    route = json.loads(capsys.readouterr().out)
    (target,) = yaml.safe_load((files / "connector.yaml").read_text())["targets"]
    assert target["name"] == route["target"]
    assert any(write["url"].endswith(rule["path"]) for rule in target["allow"])
    assert target["url"].removeprefix("http://").split(":")[0] in services()
    mounted = [volume.split(":")[1] for volume in services()["prometheus"]["volumes"]]
    for path in (write["authorization"]["credentials_file"], write["tls_config"]["ca_file"]):
        assert str(Path(path).parent) in mounted


def test_what_it_makes_is_for_its_service_alone(folder):
    made = [path for path in folder.folder.rglob("*") if path.is_file() and "files" not in path.parts]
    names = {path.name for path in made}
    assert {"relay.yaml", "ingress.pem", "ingress.key", "state.db", "token", "ca.pem"} <= names
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    assert load_certificates(folder.path("/run/sender/ca.pem"))
