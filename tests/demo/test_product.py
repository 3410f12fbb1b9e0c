"""The demo as people run it, and the configs that it writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from certs.generate import generate
from cloud_relay.config import RelayConfig
from connector_agent.config import ConnectorConfig
from demo.product import CONNECTOR, LOCATION, TENANT, TRUST_DOMAIN, connector_config, free_ports, relay_config
from shared.config import load_config
from shared.secrets import hash_secret

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("tunnel", "ingress", "relay-observe", "connector-observe")


def test_both_programs_take_the_configs(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    connector = f"{TENANT}/{LOCATION}/{CONNECTOR}"
    generate(
        Namespace(days=1, trust_domain=TRUST_DOMAIN, relay="r1", host=None, connector=[connector], out=pki,
                  keep_ca_keys=False),
        datetime.now(UTC),
    )  # fmt: skip
    ports = dict(zip(NAMES, free_ports(4), strict=True))
    (tmp_path / "relay.yaml").write_text(yaml.safe_dump(relay_config(tmp_path, pki, ports, hash_secret("x" * 44))))
    (tmp_path / "connector.yaml").write_text(yaml.safe_dump(connector_config(tmp_path, pki, ports, 1234)))

    relay = load_config(tmp_path / "relay.yaml", RelayConfig)
    agent = load_config(tmp_path / "connector.yaml", ConnectorConfig)

    assert [route.name for route in relay.tenants[TENANT].routes] == ["otlp", "remote-write"]
    assert [rule.path for rule in agent.targets[0].allow] == ["/v1/metrics", "/api/v1/write"]


def test_a_wrong_duration_is_told(tmp_path: Path) -> None:
    result = _demo("soon")
    assert result.returncode == 2
    assert "DEMO_SECONDS" in result.stdout


@pytest.mark.system
def test_the_demo_ends_well(tmp_path: Path) -> None:
    result = _demo("4")
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"demo: sent=\d+ acknowledged=\d+ delivered=\d+ lost=0 refused=\d+ "
        r"p50_ms=\d+\.\d+ p99_ms=\d+\.\d+ recovery_s=\d+\.\d+",
        last,
    )


def _demo(seconds: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py")],
        capture_output=True, text=True, timeout=50, check=False, env={**os.environ, "DEMO_SECONDS": seconds},
    )  # fmt: skip
