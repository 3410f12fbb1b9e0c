"""The examples in docs/senders are configs that load, and name only what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_relay.config import RelayConfig
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


def load_tenant(folder: Path, tenant: Any) -> RelayConfig:
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
        "ingress": [{"listen": "127.0.0.1:0", "tls": tls}],
        "tenants": {"acme": tenant},
    }
    path = folder / "relay.yaml"
    path.write_text(yaml.safe_dump(document))
    return read_config(path, RelayConfig).config


@pytest.mark.parametrize(("page", "text"), blocks("tenant"), ids=[page for page, _ in blocks("tenant")])
def test_a_tenants_example_loads(tmp_path, page, text):
    config = load_tenant(tmp_path, with_hashes(text))
    assert config.tenants["acme"].routes


def test_there_are_examples():
    assert blocks("tenant")
