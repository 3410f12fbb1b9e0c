"""What of the trial under Docker needs no engine: the document's commands fit the project, a log's lines are judged.

What a real engine makes of them is tried by `make try-docker`.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import cloud_relay.cli
import connector_agent.cli
from cloud_relay.app import STOP_GRACE, TUNNEL_GRACE
from cloud_relay.config.models import DrainConfig as RelayDrain
from connector_agent.app import STOP_GRACE as CONNECTOR_STOP_GRACE
from connector_agent.config import DrainConfig as ConnectorDrain
from shared.cli import invoke
from shared.units import parse_duration
from tests.deploy import docker_image, docker_scenario, docker_site, docker_stand_ins
from tests.deploy.docker_image import variables
from tests.deploy.docker_logs import Line, Logs
from tests.deploy.docker_trial import FIRST, PARTS
from tests.deploy.host import documented

PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}
BLOCKS = {name: text for name, text in documented().items() if name.startswith(("compose-", "image-"))}


def words(name: str) -> list[str]:
    """Of the `docker run --detach` of a daemon."""
    (command,) = re.findall(r"^docker run --detach (.*)$", BLOCKS[name].replace("\\\n", ""), re.MULTILINE)
    return shlex.split(command)


def test_every_block_of_the_document_is_run_and_there_is_no_other():
    modules = (docker_scenario, docker_image, docker_site)
    sources = "".join(Path(str(module.__file__)).read_text() for module in modules)
    assert set(re.findall(r'docs\["([a-z-]+)"\]', sources)) == set(BLOCKS)


def test_the_first_steps_are_steps():
    assert {step.__name__ for steps in PARTS.values() for step, _ in steps} > FIRST


@pytest.mark.parametrize("block", ["image-init", "image-join"])
def test_containers_get_the_least(block):
    least, volumes = variables(BLOCKS[block]).splitlines()
    assert least == 'least="--read-only --cap-drop ALL --security-opt no-new-privileges --user 65532"'
    assert re.fullmatch(r'volumes="--volume /etc/qanat:\S+ --volume /var/lib/qanat-(relay|connector):\S+"', volumes)
    runs = [line for text in BLOCKS.values() for line in text.replace("\\\n", "").splitlines() if "docker run" in line]
    assert runs
    assert all("$least $volumes qanat" in line for line in runs)


@pytest.mark.parametrize(
    ("name", "drain"),
    [
        ("image-relay", RelayDrain().delay + RelayDrain().timeout + TUNNEL_GRACE + STOP_GRACE),
        ("image-connector", ConnectorDrain().timeout + CONNECTOR_STOP_GRACE),
    ],
)
def test_a_stop_leaves_time_to_drain(name, drain):
    said = words(name)
    assert parse_duration(said[said.index("--stop-timeout") + 1] + "s") >= drain


@pytest.mark.parametrize("name", ["image-relay", "image-connector"])
def test_each_container_runs_a_command_that_there_is(capsys, name):
    program, verb = words(name)[-2:]
    assert invoke(PROGRAMS[program], [verb, "--help"]) == 0
    assert "--config" in capsys.readouterr().out


def test_there_is_a_stand_in_for_each_foreign_image():
    names = {docker_stand_ins.image_of(one.service) for one in docker_stand_ins.STAND_INS}
    services = docker_scenario.SERVICES
    assert names | {docker_site.IMAGE} == {docker_stand_ins.image_of(service) for service in services}
    assert docker_stand_ins.python_image().startswith("python:3.13")  # which Debian 13 has


@pytest.mark.parametrize(
    ("daemon", "text", "is_loud"),
    [
        (True, '{"time":"…","level":"info","event":"relay started"}', False),
        (True, '{"time":"…","level":"warning","event":"tunnel lost"}', True),
        (True, '{"time":"…","level":"error","event":"a task failed"}', True),
        (True, '{"time":"…","push":"…","status":503}', False),
        (True, "something that is not JSON", True),
        (True, '{"cut off', True),
        (False, "Made the CA of relay relay-1 in /var/lib/qanat-relay", False),
        (False, "error: the config has a problem", True),
        (False, "Traceback (most recent call last):", True),
        (False, 'ts=… caller=main.go:198 level=info msg="error: none"', True),
        (False, "ts=… caller=main.go:198 level=info msg=started", False),
        (False, 'ts=… caller=dedupe.go:112 level=warn msg="Failed to send batch, retrying"', True),
        (False, "2026-11-26T21:55:40.781Z\tinfo\tVictoriaMetrics/app/main.go:105\tstarted", False),
        (False, "2026-11-26T21:55:40.781Z\twarn\tVictoriaMetrics/app/main.go:105\tslow", True),
    ],
)
def test_a_line_is_loud_if_an_operator_would_stop_at_it(daemon, text, is_loud):
    assert Line("c", daemon, text).is_loud is is_loud


def container(folder: Path, name: str, image: str, *command: str) -> Path:
    """A container's folder as an engine keeps it; its log."""
    path = folder / name
    path.mkdir()
    config = {"Name": f"/{name}", "Path": command[0], "Args": list(command[1:]), "Config": {"Image": image}}
    log = path / f"{name}-json.log"
    log.write_text("")
    (path / "config.v2.json").write_text(json.dumps(config))
    return log


def test_logs_are_followed_beyond_the_end_of_their_container(tmp_path):
    log = container(tmp_path, "relay", "qanat", "cloud-relay", "serve")
    container(tmp_path, "other", "of-a-build", "pip").write_text(json.dumps({"log": "WARNING\n"}) + "\n")
    logs = Logs(tmp_path, {"qanat"})
    try:
        line = json.dumps({"log": "half a line, and then\n"}) + "\n"
        with log.open("a") as file:
            file.write(line[:9])
            file.flush()
            assert logs.take() == []
            file.write(line[9:])
            file.flush()
            log.unlink()
            assert logs.take() == [Line("relay", True, "half a line, and then")]
            assert logs.take() == []
    finally:
        logs.close()
