"""What a reload may change, and how it is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.config import RelayConfig, find_changes, restart_keys
from shared.config import load_config

Document = dict[str, Any]
Write = Callable[[Document], Path]


@pytest.fixture
def configs(relay_document: Document, write_config: Write) -> Callable[[Callable[[Document], object]], Any]:
    """The config before and after an edit."""

    def make(edit: Callable[[Document], object]) -> tuple[RelayConfig, RelayConfig]:
        before = load_config(write_config(relay_document), RelayConfig)
        edited = copy.deepcopy(relay_document)
        edit(edited)
        return before, load_config(write_config(edited), RelayConfig)

    return make


def test_nothing(configs: Any) -> None:
    before, after = configs(lambda _: None)
    assert find_changes(before, after) == []
    assert restart_keys(before, after) == []


def test_what_comes_goes_and_changes(configs: Any) -> None:
    def edit(document: Document) -> None:
        acme = document["tenants"]["acme"]
        acme["routes"][0].update(hold="1s", limits={"body": "2MiB"})
        acme["senders"][0]["basic"]["password_hash"] = "sha256:" + "1" * 64
        acme["routes"].pop(1)
        acme["locations"] = ["walldorf", "berlin"]
        del document["tenants"]["globex"]
        document["tenants"]["initech"] = {"locations": ["x"]}
        document["limits"] = {"in_flight": 5}

    before, after = configs(edit)
    changes = [str(change) for change in find_changes(before, after)]
    assert changes == [
        "relay changed: limits",
        "tenant globex removed",
        "tenant initech added",
        "location acme/berlin added",
        "location acme/newtown removed",
        "sender acme/s4 changed: basic",
        "route acme/exact removed",
        "route acme/frun changed: limits, hold",
    ]
    assert restart_keys(before, after) == []


@pytest.mark.parametrize(
    ("edit", "keys"),
    [
        (lambda d: d.update(state_dir="elsewhere"), ["state_dir"]),
        (lambda d: d["tunnel"].update(listen="127.0.0.1:9"), ["tunnel.listen"]),
        (lambda d: d["ingress"].append({"listen": "127.0.0.1:9"}), ["ingress.listen"]),
        (lambda d: d["ingress"][0].update(tls={"certificate": "relay.pem", "key": "relay.key"}), ["ingress.tls"]),
        (lambda d: d.update(log={"level": "debug"}, memory={"budget": "1GiB"}), ["log", "memory"]),
        (lambda d: d.update(observe={"listen": "127.0.0.1:0"}), ["observe"]),
    ],
)
def test_what_needs_a_restart(configs: Any, edit: Callable[[Document], object], keys: list[str]) -> None:
    assert restart_keys(*configs(edit)) == keys


def test_what_a_tenant_has_of_its_own_is_told(
    relay_document: dict[str, Any], write_config: Callable[..., Path]
) -> None:
    old = load_config(write_config(relay_document), RelayConfig)
    relay_document["tenants"]["acme"]["token_endpoints"] = [{"host": "auth.example.com"}]
    relay_document["tenants"]["acme"]["limits"] = {"bytes": "1MiB/s"}
    new = load_config(write_config(relay_document), RelayConfig)
    assert [str(change) for change in find_changes(old, new)] == ["tenant acme changed: limits, token_endpoints"]
