"""The files behind docker-compose.yml: what its setup writes is what the programs take, and the commands exist."""

from __future__ import annotations

import json
import runpy
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "deploy" / "compose" / "setup.py"))["main"]
PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("etc")
    assert SETUP([str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("service", ["relay", "connector"])
def test_each_program_takes_its_config(folder, services, capsys, service):
    program, _verb, option, path = services[service]["command"]
    config = folder / Path(path).relative_to("/etc/qanat")
    verb = ["check", "--offline"] if service == "connector" else ["check"]
    assert invoke(PROGRAMS[program], [*verb, option, str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


@pytest.mark.parametrize("service", ["relay", "connector"])
def test_each_service_runs_a_command_that_there_is(services, capsys, service):
    program, verb, option, _path = services[service]["command"]
    assert invoke(PROGRAMS[program], [verb, "--help"]) == 0
    assert option in capsys.readouterr().out


def test_the_push_in_the_header_has_a_route_and_a_target_that_allows_it(folder, services, capsys):
    relay = PROGRAMS["cloud-relay"]
    url = next(line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if "'https://" in line)
    url = url.split("'")[1]
    arguments = ["routes", "test", "POST", url, "--config", str(folder / "relay.yaml"), "--json"]
    assert invoke(relay, arguments) == 0
    route = json.loads(capsys.readouterr().out)
    targets = yaml.safe_load((folder / "connector.yaml").read_text())["targets"]
    (target,) = [one for one in targets if one["name"] == route["target"]]
    assert any(url.endswith(rule["path"]) and "POST" in rule["methods"] for rule in target["allow"])
    assert Path(target["url"]).name.startswith("target:")
    assert "target" in services


def test_secrets_are_for_their_owner_alone(folder):
    for path in [folder / "token", *folder.glob("*.key"), *folder.glob("*.yaml")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_run_changes_nothing(tmp_path):
    assert SETUP([str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert before
    assert SETUP([str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_services_are_what_the_header_says(services):
    assert set(services) == {"setup", "relay", "connector", "target"}
    assert not set(services["relay"]["networks"]) & set(services["target"]["networks"])
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).is_dir()
    assert (ROOT / services["relay"]["build"]["dockerfile"]).is_file()


def test_the_image_holds_what_it_is_built_of():
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    copied = [
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    ]
    assert {"shared", "cloud_relay", "connector_agent", "pyproject.toml", "constraints.txt"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
