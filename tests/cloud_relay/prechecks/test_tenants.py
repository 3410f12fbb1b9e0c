"""Routes and senders, by what the running relay tells of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from cloud_relay.config import RelayConfig
from cloud_relay.prechecks.tenants import check_tenants
from shared.config import load_config
from shared.prechecks import Precheck

Document = dict[str, Any]


@pytest.fixture
def config(relay_document: Document, write_config: Callable[[Document], Path]) -> RelayConfig:
    return load_config(write_config(relay_document), RelayConfig)


def route(name: str = "frun", **more: Any) -> Document:
    found = {"tenant": "acme", "route": name, "location": "walldorf", "target": "focused-run", "tunnels": 2}
    return found | {"state": "green"} | more


async def checked(config: RelayConfig, *routes: Document, senders: tuple[Document, ...] = ()) -> dict[str, Precheck]:
    status = {"routes": routes, "tcp_routes": (), "senders": senders}
    rows = await check_tenants(config, status, {("acme", "ibp"): "2026-01-01T00:00:00Z"})
    return {row.check: row for row in rows if row.subject.startswith("tenant acme")}


@pytest.mark.parametrize(
    ("told", "result", "words"),
    [
        ({}, "ok", "to walldorf/focused-run"),
        ({"age_s": 3.2, "why": None}, "ok", "as seen 3 s ago"),
        ({"state": "red", "tunnels": 0}, "failed", "no connector"),
        ({"state": "red", "why": "target-unreachable", "age_s": 8.0}, "failed", "could not connect to the target"),
        ({"state": "unknown", "why": "not-probed"}, "ok", "is not known (not-probed)"),
    ],
)
async def test_a_route(config: RelayConfig, told: Document, result: str, words: str) -> None:
    row = (await checked(config, route(**told)))["frun"]
    assert row.result == result
    assert words in row.detail
    assert row.figure is not None
    assert row.figure.unit == "tunnels"
    if result == "failed":
        assert row.remedy


async def test_senders(config: RelayConfig) -> None:
    rows = await checked(config, senders=({"tenant": "acme", "sender": "s4"},))
    assert (rows["s4"].result, rows["s4"].detail) == ("ok", "known by basic")
    assert (rows["ibp"].result, rows["ibp"].code) == ("warning", "sender-disabled")
    assert "senders enable acme/ibp" in rows["ibp"].remedy


@pytest.mark.parametrize(("silent", "result"), [(500.0, "warning"), (50.0, "ok")])
async def test_a_sender_that_should_push(config: RelayConfig, silent: float, result: str) -> None:
    told = {"tenant": "acme", "sender": "s4", "silent_s": silent, "expect_every_s": 300.0}
    row = (await checked(config, senders=(told,)))["s4"]
    assert row.result == result


@pytest.mark.parametrize(("keys", "result"), [(1, "ok"), (0, "failed")])
async def test_an_issuers_keys_in_a_file(
    relay_document: Document, write_config: Callable[[Document], Path], keys: int, result: str
) -> None:
    issuer = {"name": "sap", "issuer": "https://sap", "audience": "relay", "jwks_file": "keys.json"}
    relay_document["tenants"]["acme"]["issuers"] = [issuer]
    path = write_config(relay_document)
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    entry = RSAAlgorithm.to_jwk(public, as_dict=True) | {"kid": "a", "use": "sig"}
    (path.parent / "keys.json").write_text(json.dumps({"keys": [entry][:keys]}))
    row = (await checked(load_config(path, RelayConfig)))["issuer sap"]
    assert row.result == result
    if result == "failed":
        assert "keys.json" in row.detail
