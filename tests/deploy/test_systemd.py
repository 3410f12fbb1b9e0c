"""The units of deploy/systemd: what they run exists, they are hardened alike, and systemd's own tools find no fault.

What a real systemd makes of them is tried by `make try-systemd`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

import cloud_relay.cli
import connector_agent.cli
from cloud_relay.app import STOP_GRACE, TUNNEL_GRACE
from cloud_relay.cli_init import LISTEN
from cloud_relay.config.models import DrainConfig as RelayDrain
from connector_agent.app import STOP_GRACE as CONNECTOR_STOP_GRACE
from connector_agent.config import DrainConfig as ConnectorDrain
from shared.cli import invoke
from shared.exits import ExitCode
from shared.listeners import BACKLOG
from shared.units import parse_duration
from tests.deploy.host import documented
from tests.support.peers import Peer
from tests.system.programs import ROOT, command

FOLDER = ROOT / "deploy" / "systemd"
PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}
SOCKET = "qanat-relay.socket"
SERVICES = sorted(path.name for path in FOLDER.glob("*.service"))
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
MAX_EXPOSURE = 2.0


class Setting(NamedTuple):
    section: str
    key: str
    value: str


def settings(name: str) -> list[Setting]:
    """Every assignment of a unit, in order; a line that is none fails."""
    section, found = "", []
    for line in (FOLDER / name).read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.append(Setting(section, key, value))
    return found


def value(name: str, key: str) -> str:
    (found,) = [one.value for one in settings(name) if one.key == key]
    return found


def test_there_are_units() -> None:
    assert SERVICES == ["qanat-connector.service", "qanat-connector@.service", "qanat-relay.service"]


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
@pytest.mark.parametrize("name", SERVICES)
def test_each_command_is_one_that_there_is(name: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, verb, option, config = shlex.split(value(name, key))
    assert Path(program).parent == Path("/opt/qanat/current/bin")
    assert invoke(PROGRAMS[Path(program).name], [verb, "--help"]) == 0
    assert option in capsys.readouterr().out
    assert config.startswith("/etc/qanat/")
    assert config == shlex.split(value(name, "ExecStart"))[-1]


def test_both_kinds_of_connector_differ_in_their_name_alone() -> None:
    plain, template = settings("qanat-connector.service"), settings("qanat-connector@.service")
    assert [one.key for one in template] == [one.key for one in plain]
    for one, other in zip(template, plain, strict=True):
        assert one.value.replace("-%i", "").replace(" %i", "") == other.value


def test_relay_and_connector_live_alike() -> None:
    own = {"Description", "ExecStart", "ExecReload", "StateDirectory", "LoadCredential"}
    relay, connector = (
        [one for one in settings(name) if one.key not in own]
        for name in ("qanat-relay.service", "qanat-connector.service")
    )
    assert relay == connector


@pytest.mark.parametrize("name", SERVICES)
def test_what_heals_is_tried_for_ever_and_what_does_not_is_not(name: str) -> None:
    assert value(name, "Restart") == "always"
    assert value(name, "StartLimitIntervalSec") == "0"
    assert set(value(name, "RestartPreventExitStatus").split()) == {str(int(ExitCode.USAGE)), str(int(ExitCode.CONFIG))}


def test_a_drain_has_the_time_that_the_config_gives_it_by_default() -> None:
    relay = RelayDrain().delay + RelayDrain().timeout + TUNNEL_GRACE + STOP_GRACE
    assert parse_duration(value("qanat-relay.service", "TimeoutStopSec")) >= relay
    connector = ConnectorDrain().timeout + CONNECTOR_STOP_GRACE
    assert parse_duration(value("qanat-connector.service", "TimeoutStopSec")) >= connector


def test_the_wheel_brings_all_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (patterns,) = project["tool"]["setuptools"]["data-files"].values()
    files = [path.relative_to(ROOT).as_posix() for path in FOLDER.iterdir()]
    assert files
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_the_socket_unit_fits_a_config_that_init_writes() -> None:
    (listen,) = [one.value for one in settings(SOCKET) if one.key == "ListenStream"]
    assert f":{listen}" == LISTEN
    assert int(value(SOCKET, "Backlog")) == BACKLOG


def test_the_document_names_what_there_is() -> None:
    blocks = documented()
    installed = set(re.findall(r"qanat\.(?:sysusers|tmpfiles)\.conf", blocks["install"]))
    assert installed == {path.name for path in FOLDER.glob("*.conf")}
    assert set(re.findall(r"systemctl enable --now (\S+)", INSTALL)) == {
        "qanat-relay", "qanat-relay.socket", "qanat-connector", "qanat-connector@berlin",
    }  # fmt: skip
    for name in ("qanat-relay.service", "qanat-connector.service"):
        assert value(name, "LoadCredential") in INSTALL
        assert f"/var/lib/{value(name, 'StateDirectory')}" in INSTALL
        assert shlex.split(value(name, "ExecStart"))[-1].rpartition("/")[2] in INSTALL
    assert f"{value('qanat-relay.service', 'WatchdogSec').removesuffix('s')} s" in INSTALL


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies whose programs exist, and an instance of the template."""
    paths = []
    for name in [*SERVICES, SOCKET]:
        text = (FOLDER / name).read_text()
        for program in PROGRAMS:
            text = text.replace(f"/opt/qanat/current/bin/{program}", command(program))
        path = tmp_path / name.replace("@.", "@berlin.")
        path.write_text(text)
        paths.append(str(path))
    return paths


def test_systemd_understands_every_line(units: list[str], peer: Callable[[str], Peer]) -> None:
    systemd = peer("systemd-analyze")
    argv = [systemd.path, "verify", "--man=no", "--recursive-errors=no", *units]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=systemd.environment)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_systemd_finds_them_hardened(units: list[str], peer: Callable[[str], Peer]) -> None:
    systemd = peer("systemd-analyze")
    argv = [systemd.path, "security", "--offline=yes", f"--threshold={int(MAX_EXPOSURE * 10)}", *units]
    argv = [one for one in argv if not one.endswith(".socket")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=systemd.environment)
    found = re.findall(r"exposure level for (\S+): ([0-9.]+)", done.stdout)
    assert len(found) == len(SERVICES), done.stdout + done.stderr
    assert all(float(exposure) <= MAX_EXPOSURE for _, exposure in found), found
    assert done.returncode == 0
