"""From a config to what a push holds, and what outlives the next config."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.config import RelayConfig
from cloud_relay.hashing import HashingPool
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics
from cloud_relay.oauth.fetch import KeyBook
from cloud_relay.oauth.keys import SigningKeys
from cloud_relay.oauth.tokens import AccessTokens
from cloud_relay.policy import ConfigPolicy
from cloud_relay.realms import SenderServices
from cloud_relay.routing import Route
from cloud_relay.sender_state import SenderFile
from cloud_relay.senders import Sender
from cloud_relay.snapshot import Snapshot, SnapshotBuilder
from cloud_relay.throttle import FailureThrottle
from shared.config import load_config
from shared.errors import FAULTS

Document = dict[str, Any]
Edit = Callable[[Document], object]


class World:
    """A builder, and configs for it."""

    def __init__(self, document: Document, write: Callable[[Document], Path], pool: HashingPool) -> None:
        self.document = document
        self._write = write
        self.limits = Limits()
        self.metrics = RelayMetrics(process=False)
        self.state = SenderFile(Path("none"))
        tokens = AccessTokens(SigningKeys(Path("none")), "qanat.test")
        services = SenderServices(pool, FailureThrottle(), KeyBook(), tokens)
        self.builder = SnapshotBuilder(self.limits, self.metrics, services, self.state)

    def build(self, edit: Edit | None = None, previous: Snapshot | None = None) -> Snapshot:
        document = copy.deepcopy(self.document)
        if edit is not None:
            edit(document)
        return self.builder.build(load_config(self._write(document), RelayConfig), previous)


@pytest.fixture
def world(relay_document: Document, write_config: Callable[[Document], Path]) -> Iterator[World]:
    pool = HashingPool()
    yield World(relay_document, write_config, pool)
    pool.close()


def find(snapshot: Snapshot, host: bytes, path: bytes) -> Route:
    route = snapshot.table.lookup(host, path)
    assert route is not None
    return route


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def test_a_route_has_everything_resolved(world: World) -> None:
    snapshot = world.build()
    frun = find(snapshot, b"push.example.com", b"/sap/frun/x")
    assert frun.key == ("acme", "walldorf", "focused-run")
    assert (frun.max_body, frun.hold, frun.timeout) == (1 << 20, 3.0, 30.0)
    assert (frun.idempotent, frun.pass_authorization) == (False, False)
    assert frun.quota_fault is FAULTS["quota-exceeded"]
    assert sorted(sender.name for sender in frun.senders) == ["ibp", "s4"]
    assert frun.www_authenticate == b'Basic realm="qanat", charset="UTF-8", Bearer realm="qanat"'
    exact = find(snapshot, b"push.example.com", b"/write")
    assert exact.quota_fault is FAULTS["quota-exceeded-try-later"]
    assert exact.idempotent
    assert exact.www_authenticate == b'Basic realm="qanat", charset="UTF-8"'
    assert snapshot.table.lookup(b"push.example.com", b"/write/x") is None


def test_every_tenant_has_its_own_realm(world: World) -> None:
    snapshot = world.build()
    ours, theirs = snapshot.realms["acme"], snapshot.realms["globex"]
    assert repr(ours.judge(basic("s4", "s4-password"))) == "<Sender acme/s4>"
    assert repr(theirs.judge(basic("s4", "other"))) == "<Sender globex/s4>"
    assert ours.judge(basic("s4", "other")) is FAULTS["unauthenticated"]
    assert ours.judge(b"Bearer ibp-2") is ours.judge(b"Bearer ibp-1")
    assert theirs.judge(b"Bearer ibp-1") is FAULTS["unauthenticated"]


def test_ten_seconds_of_the_rate_may_come_at_once(world: World) -> None:
    route = find(world.build(), b"push.example.com", b"/sap/frun")
    for _ in range(100):
        assert not route.gate.is_shut(1.0)
        route.gate.enter(1.0)
        route.gate.leave()
    assert route.gate.is_shut(1.0)


def test_counts_and_quotas_outlive_a_reload(world: World) -> None:
    before = world.build()
    old = find(before, b"push.example.com", b"/sap/frun")
    sender = next(iter(old.senders))
    for _ in range(2):
        assert world.limits.admit(sender, old, None, 0.0) is None
    old.metrics.finished(204, None, 0.1, 0.0, 0.1)

    def edit(document: Document) -> None:
        document["tenants"]["acme"]["routes"][0]["limits"] = {"in_flight": 2}

    after = world.build(edit, before)
    new = find(after, b"push.example.com", b"/sap/frun")
    assert new is not old
    assert new.metrics is old.metrics
    assert world.limits.admit(next(iter(new.senders)), new, None, 0.0) is FAULTS["quota-exceeded"]
    # A push of before the reload ends under the old config, and makes room under the new one.
    world.limits.release(sender, old)
    assert world.limits.admit(next(iter(new.senders)), new, None, 0.0) is None


def test_what_is_removed_is_forgotten_but_can_still_end(world: World) -> None:
    before = world.build()
    route = find(before, b"globex.example.com", b"/")
    sender = next(iter(route.senders))
    assert world.limits.admit(sender, route, None, 0.0) is None
    after = world.build(lambda document: document["tenants"].pop("globex"), before)
    assert after.table.lookup(b"globex.example.com", b"/") is None
    assert b"globex" not in world.metrics.render()
    world.limits.release(sender, route)
    route.metrics.finished(200, None, 0.1, 0.0, 0.1)
    assert world.limits.in_flight == 0


def test_good_credentials_are_remembered_over_a_reload_until_they_change(world: World) -> None:
    before = world.build()
    header = basic("s4", "s4-password")
    before.realms["acme"].judge(header)
    same = world.build(None, before)
    assert len(same.realms["acme"].remembered) == 1
    sender = same.realms["acme"].judge(header)
    assert isinstance(sender, Sender)
    assert sender in find(same, b"push.example.com", b"/write").senders

    def edit(document: Document) -> None:
        document["tenants"]["acme"]["senders"][0]["basic"]["password_hash"] = "sha256:" + "0" * 64

    changed = world.build(edit, same)
    assert changed.realms["acme"].judge(header) is FAULTS["unauthenticated"]


def test_a_removed_sender_is_nobody(world: World) -> None:
    before = world.build()
    before.realms["acme"].judge(b"Bearer ibp-1")

    def edit(document: Document) -> None:
        acme = document["tenants"]["acme"]
        acme["senders"].pop()
        acme["routes"][0]["senders"] = ["s4"]

    assert world.build(edit, before).realms["acme"].judge(b"Bearer ibp-1") is FAULTS["unauthenticated"]


def test_the_policy_knows_tenants_and_locations(world: World) -> None:
    policy = ConfigPolicy(world.build().config)
    assert policy.trust_domain == "qanat.test"
    assert policy.knows("acme", "newtown")
    assert not policy.knows("globex", "newtown")
    assert not policy.knows("initech", "walldorf")
