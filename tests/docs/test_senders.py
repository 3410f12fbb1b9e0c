"""The examples in docs/senders are configs that load, and name only what there is."""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_relay.config import RelayConfig
from connector_agent.config import ConnectorConfig
from shared.config import read_config
from tests.system.programs import ROOT

PAGES = sorted((ROOT / "docs" / "senders").glob("*.md"))
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILES = ("acme-senders-ca.pem", "relay.pem", "relay.key", "ingress.pem", "ingress.key", "ca.pem")


def blocks(kind: str) -> list[tuple[str, str]]:
    """Every YAML block whose first line is a comment that begins with `kind`: (page, text)."""
    return [
        (page.name, text)
        for page in PAGES
        for text in _BLOCK.findall(page.read_text(encoding="utf-8"))
        if text.startswith(f"# {kind}\n")
    ]


def with_hashes(text: str) -> Any:
    """The example with hashes in place of `sha256:…`, each another."""
    parts = text.split("sha256:…")
    filled = "".join(f"{part}sha256:{number:064x}" for number, part in enumerate(parts[:-1]))
    return yaml.safe_load(filled + parts[-1])


def load_tenant(folder: Path, tenant: Any, ingress: Any = None) -> RelayConfig:
    for name in _FILES:
        (folder / name).touch()
    tls = {"certificate": "ingress.pem", "key": "ingress.key"}
    document = {
        "state_dir": "state",
        "trust_domain": "qanat.test",
        "tunnel": {
            "listen": "127.0.0.1:0",
            "tls": {"certificate": "relay.pem", "key": "relay.key", "client_ca": "ca.pem"},
        },
        "ingress": [ingress or {"listen": "127.0.0.1:0", "tls": tls}],
        "tenants": {"acme": tenant},
    }
    path = folder / "relay.yaml"
    path.write_text(yaml.safe_dump(document))
    return read_config(path, RelayConfig).config


@pytest.mark.parametrize(("page", "text"), blocks("tenant"), ids=[page for page, _ in blocks("tenant")])
def test_a_tenants_example_loads(tmp_path, page, text):
    config = load_tenant(tmp_path, with_hashes(text))
    assert config.tenants["acme"].routes


@pytest.mark.parametrize(("page", "text"), blocks("target"), ids=[page for page, _ in blocks("target")])
def test_a_targets_example_loads(tmp_path, page, text):
    for name in (*_FILES, "influx.auth", "frun.auth", "corp-ca.pem"):
        (tmp_path / name).touch()
    document = {
        "relays": ["wss://relay.example.com:443"],
        "state_dir": "state",
        "tls": {"certificate": "relay.pem", "key": "relay.key", "ca": "ca.pem"},
        "targets": [yaml.safe_load(text)],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(document))
    (target,) = read_config(path, ConnectorConfig).config.targets
    assert target.allow


def test_the_ingress_example_loads(tmp_path):
    ((_, text),) = blocks("ingress")
    (ingress,) = yaml.safe_load(text)
    assert load_tenant(tmp_path, with_hashes(blocks("tenant")[0][1]), ingress).ingress[0].tls


def routes_and_endpoints(page: str) -> set[str]:
    """The URLs that the page's tenant takes pushes and requests for tokens at."""
    ((_, text),) = [one for one in blocks("tenant") if one[0] == page]
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        tenant = load_tenant(Path(folder), with_hashes(text)).tenants["acme"]
    for route in tenant.routes:
        found.add(f"https://{route.match.host}{route.match.path}")
    for endpoint in tenant.token_endpoints:
        found.add(f"https://{endpoint.host}{endpoint.path}")
    return found


@pytest.mark.parametrize(
    ("page", "served_by"),
    [("prometheus.md", "prometheus.md"), ("telegraf.md", "telegraf.md"), ("alloy.md", "prometheus.md"),
     ("opentelemetry.md", "opentelemetry.md")],
)  # fmt: skip
def test_what_senders_are_told_is_what_the_relay_serves(page, served_by):
    served = routes_and_endpoints(served_by)
    text = (ROOT / "docs" / "senders" / page).read_text(encoding="utf-8")
    told = set(re.findall(r"https://push\.example\.com[^\s\"?]*", text))
    assert told
    for url in told:
        target = f"{url}/v1" if page == "opentelemetry.md" and url.endswith(".com") else url
        assert target in served, f"{page}: {url}"


def test_prometheus_takes_its_example(tmp_path, peer):
    """By its own checker: every option is one that it knows."""
    ((_, text),) = blocks("prometheus.yml")
    path = tmp_path / "prometheus.yml"
    for name in ("relay.secret", "relay.token", "relay.password", "relay.pem", "relay.key"):
        (tmp_path / name).touch()
    path.write_text(text.replace("/etc/prometheus", str(tmp_path)))
    program = peer("promtool")
    done = subprocess.run(
        [program.path, "check", "config", "--syntax-only", str(path)],
        capture_output=True, text=True, timeout=30, env=dict(program.environment),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_other_examples_are_well_formed():
    ((_, collector),) = blocks("otel-collector.yaml")
    parsed = yaml.safe_load(collector)
    for pipeline in parsed["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(parsed["receivers"])
        assert set(pipeline["exporters"]) <= set(parsed["exporters"])
    assert set(parsed["service"]["extensions"]) <= set(parsed["extensions"])
    page = (ROOT / "docs" / "senders" / "telegraf.md").read_text(encoding="utf-8")
    ((toml,),) = [re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)]
    assert tomllib.loads(toml)["outputs"]["http"]
    alloy = (ROOT / "docs" / "senders" / "alloy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```alloy\n(.*?)^```$", alloy, re.DOTALL | re.MULTILINE)
    assert block.count("{") == block.count("}") == 3


def test_what_was_not_tried_is_marked_and_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
    for name in ("telegraf.md", "alloy.md", "sap-cloud.md", "focused-run.md"):
        assert "Not tried" in (ROOT / "docs" / "senders" / name).read_text(encoding="utf-8")


def test_there_are_examples():
    assert len(blocks("tenant")) >= 6
    assert len(blocks("target")) >= 4
