"""The configs with which Qanat is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.scenarios import SCENARIOS
from benchmarks.site import FileServer, Site, make_certificate
from benchmarks.systems.base import Shape
from benchmarks.systems.qanat import _make_pki, why_not_compiled
from benchmarks.systems.qanat_config import connector_config, crowd_identities, crowd_tunnels, relay_config
from cloud_relay.config import RelayConfig
from connector_agent.config import ConnectorConfig
from shared.config import load_config

PORTS = {"tunnel": 1, "tls": 2, "plain": 3, "relay": 4, "connector": 5, "files": 6}


@pytest.mark.parametrize("shape", [Shape(), Shape(routes=10, senders=20)], ids=repr)
def test_both_programs_take_the_configs(tmp_path: Path, shape: Shape) -> None:
    certificate, key, authority = make_certificate(tmp_path)
    site = Site(tmp_path, certificate, key, authority, {"push": 11, "sink": 12})
    _make_pki(site, ["bench/here/c1"])
    (tmp_path / "relay.yaml").write_text(yaml.safe_dump(relay_config(site, PORTS, shape)))
    (tmp_path / "connector.yaml").write_text(yaml.safe_dump(connector_config(site, PORTS)))

    tenant = load_config(tmp_path / "relay.yaml", RelayConfig).tenants["bench"]
    targets = load_config(tmp_path / "connector.yaml", ConnectorConfig).targets

    assert (len(tenant.routes), len(tenant.senders)) == (shape.routes + 1, shape.senders)  # push and sink are two
    assert [target.name for target in targets] == ["push", "sink"]


def test_a_crowd_has_locations_routes_and_tunnels(tmp_path: Path) -> None:
    shape = Shape(idle_connectors=2, tunnels_each=3, locations=2)
    assert crowd_identities(shape) == ["bench/crowd-0/c", "bench/crowd-1/c", "idle/many/c0", "idle/many/c1"]
    tunnels = crowd_tunnels(shape)
    assert (len(tunnels), len(set(tunnels))) == (8, 4)
    assert tunnels[:2] == ["connector.bench.crowd-0.c", "connector.bench.crowd-1.c"]
    site = Site(tmp_path, tmp_path, tmp_path, tmp_path, {"push": 11, "sink": 12})
    tenant = relay_config(site, PORTS, shape)["tenants"]["bench"]
    assert tenant["locations"] == ["here", "crowd-0", "crowd-1"]
    assert {(one["match"]["path"], one["to"]["location"]) for one in tenant["routes"]} >= {
        ("/many/0/push", "crowd-0"), ("/many/1/sink", "crowd-1"),
    }  # fmt: skip


def test_a_compiled_build_of_other_sources_is_none(tmp_path: Path) -> None:
    assert "make compile" in why_not_compiled(tmp_path)[0]
    (tmp_path / "stamp").touch()
    assert "newer" in why_not_compiled(tmp_path)[0]


def test_a_second_sender_may_push_and_passwords_may_be_slow(tmp_path: Path) -> None:
    site = Site(tmp_path, tmp_path, tmp_path, tmp_path, {"push": 11})
    config = relay_config(site, PORTS, Shape(senders=3, slow_passwords=True))["tenants"]["bench"]
    assert config["routes"][0]["senders"] == ["bench", "bench-1"]
    assert [one["basic"]["password_hash"][:7] for one in config["senders"]] == ["scrypt:"] * 3


def test_a_file_server_gets_a_tcp_route(tmp_path: Path) -> None:
    certificate, key, authority = make_certificate(tmp_path)
    site = Site(tmp_path, certificate, key, authority, {"push": 11}, file_server=FileServer(tmp_path, 13, "daemon"))
    own = site.subsite("qanat")
    _make_pki(own, ["bench/here/c1"])
    (tmp_path / "relay.yaml").write_text(yaml.safe_dump(relay_config(own, PORTS, Shape())))
    (tmp_path / "connector.yaml").write_text(yaml.safe_dump(connector_config(own, PORTS)))

    route = load_config(tmp_path / "relay.yaml", RelayConfig).tenants["bench"].tcp_routes[0]
    target = load_config(tmp_path / "connector.yaml", ConnectorConfig).targets[-1]

    assert route.to.target == target.name
    assert (route.listen.port, str(target.tcp)) == (6, "127.0.0.1:13")


def test_everything_that_people_run_is_on(tmp_path: Path) -> None:
    site = Site(tmp_path, tmp_path, tmp_path, tmp_path, {"push": 11, "sink": 12})
    relay, connector = relay_config(site, PORTS, Shape()), connector_config(site, PORTS)
    assert relay["log"]["access"] == connector["log"]["access"] == "stdout"
    assert relay["observe"]
    assert connector["observe"]
    for route in relay["tenants"]["bench"]["routes"]:
        assert route["senders"]
        assert {"rate", "in_flight", "body"} <= route["limits"].keys()


def test_each_bar_has_a_scenario() -> None:
    names = {one.name for one in SCENARIOS}
    assert names >= {
        "small-1", "small-16", "small-64", "small-256", "bulk-1mib", "small-beside-bulk", "burst-4000-kept",
        "burst-4000-new", "flood", "wrong-passwords-kept", "wrong-passwords-new-tls", "idle-tunnels", "stalled-readers",
        "scale-100", "tunnels-100", "tunnels-used", "mass-reconnect", "reconnect-300", "workers-2",
        "long-fat", "slow-link", "tcp-scp",
    }  # fmt: skip
