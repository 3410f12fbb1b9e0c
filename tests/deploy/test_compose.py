"""docker-compose.yml holds together: networks, volumes, order, hardening."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke
from tests.deploy.scenario import COMPOSE, services
from tests.deploy.test_image import instructions
from tests.system.programs import ROOT

PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}
OURS = ("setup", "relay", "connector")
OLD_KEYS = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "healthcheck", "image", "network_mode", "networks",
    "ports", "pull_policy", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes",
}  # fmt: skip
"""Keys of a service that docker-compose 1.29 knows as well as today's Compose."""


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_old_and_new_compose_know_every_key():
    assert {key for key in document() if not key.startswith("x-")} == {"services", "networks", "volumes"}
    for name, service in services().items():
        assert set(service) <= OLD_KEYS, name
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}


def test_the_data_center_is_reached_through_the_tunnel_alone():
    networks = {name: set(service.get("networks", ())) for name, service in services().items()}
    assert networks == {
        "setup": set(), "relay": {"senders", "wan"}, "connector": {"wan", "datacenter"},
        "victoria-metrics": {"datacenter"}, "prometheus": {"senders"},
    }  # fmt: skip
    assert services()["setup"]["network_mode"] == "none"
    assert document()["networks"] == {"senders": None, "wan": None, "datacenter": {"internal": True}}
    assert [name for name, service in services().items() if "ports" in service] == ["relay"]
    assert all(port.startswith("127.0.0.1:") for port in services()["relay"]["ports"])


def test_every_volume_is_declared_and_every_file_is_there():
    used = set()
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro,z"), "SELinux wants a label"
            else:
                used.add(source)
    assert used == set(document()["volumes"])


def test_only_setup_may_write_what_others_read():
    """A secret has one reader, and nobody but its owner changes it."""
    for place in ("join", "sender", "relay-config"):
        holders = {
            name: volume.endswith(":ro")
            for name, service in services().items()
            for volume in service.get("volumes", [])
            if volume.startswith(f"{place}:")
        }
        assert len(holders) == 2
        assert not holders.pop("setup")
        assert list(holders.values()) == [True]


def test_the_image_is_built_once_and_never_fetched():
    """Compose builds side by side: two builds of one tag fail, on some machines and the first time only."""
    assert [name for name, service in services().items() if "build" in service] == ["setup"]
    build = services()["setup"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()
    assert set(build["args"]) <= {line.partition("=")[0] for line in instructions("ARG")}
    assert build["args"]["QANAT_COMPILE"] == "0", "minutes before a demo"
    assert {name for name, service in services().items() if service.get("pull_policy") == "never"} == set(OURS)
    assert {services()[name]["image"] for name in OURS} == {"qanat"}


def test_order_follows_health():
    conditions = {
        (name, other): how["condition"]
        for name, service in services().items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert conditions == {
        ("relay", "setup"): "service_completed_successfully",
        ("connector", "relay"): "service_healthy",
        ("connector", "victoria-metrics"): "service_healthy",
        ("prometheus", "relay"): "service_healthy",
    }
    assert all("healthcheck" in service for name, service in services().items() if name != "setup")


def test_hardening_and_healing():
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if name == "setup" else "unless-stopped")
    for name in OURS:
        assert services()[name]["read_only"] is True
    assert "user" not in services()["relay"].keys() | services()["connector"].keys()  # the image's


@pytest.mark.parametrize("service", ["relay", "connector"])
def test_each_service_runs_a_command_that_there_is(capsys, service):
    program, verb, option, _path = services()[service]["command"]
    assert invoke(PROGRAMS[program], [verb, "--help"]) == 0
    assert option in capsys.readouterr().out
