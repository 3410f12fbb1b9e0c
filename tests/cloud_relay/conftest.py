"""A relay's config files for tests. What goes through the tunnel's port runs on both loops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.loops import Factories, both_for

Documents = dict[str, Any]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    return both_for(item, {"test_tunnels.py"})


def sha256(secret: str) -> str:
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


@pytest.fixture
def relay_document() -> Documents:
    """A small config that has everything, as it comes out of YAML."""
    return {
        "state_dir": "state",
        "trust_domain": "qanat.test",
        "tunnel": {
            "listen": "127.0.0.1:0",
            "tls": {"certificate": "relay.pem", "key": "relay.key", "client_ca": "ca.pem"},
        },
        "ingress": [{"listen": "127.0.0.1:0"}],
        "tenants": {
            "acme": {
                "locations": ["walldorf", "newtown"],
                "senders": [
                    {"name": "s4", "basic": {"username": "s4", "password_hash": sha256("s4-password")}},
                    {"name": "ibp", "bearer": {"token_hash": [sha256("ibp-1"), sha256("ibp-2")]}},
                ],
                "routes": [
                    {
                        "name": "frun",
                        "match": {"host": "push.example.com", "path": "/sap/frun"},
                        "senders": ["s4", "ibp"],
                        "to": {"location": "walldorf", "target": "focused-run"},
                        "limits": {"body": "1MiB", "rate": "10/s", "in_flight": 4},
                    },
                    {
                        "name": "exact",
                        "match": {"host": "push.example.com", "path": "/write", "sub_paths": False},
                        "senders": ["s4"],
                        "to": {"location": "newtown", "target": "tsdb"},
                        "quota_status": 503,
                        "idempotent": True,
                    },
                ],
            },
            "globex": {
                "locations": ["walldorf"],
                "senders": [{"name": "s4", "basic": {"username": "s4", "password_hash": sha256("other")}}],
                "routes": [
                    {
                        "name": "all",
                        "match": {"host": "globex.example.com", "path": "/"},
                        "senders": ["s4"],
                        "to": {"location": "walldorf", "target": "focused-run"},
                    }
                ],
            },
        },
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[Documents], Path]:
    """Writes a config, and empty files for what it names; gives its path."""

    def write(document: Documents) -> Path:
        for name in ("relay.pem", "relay.key", "ca.pem"):
            (tmp_path / name).touch()
        path = tmp_path / "relay.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return write
