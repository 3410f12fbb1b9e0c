"""The whole chain in this process: a relay and a connector with real sockets, and whatever a test puts at its ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from cloud_relay.doors import Doors
from cloud_relay.wiring import make_context
from connector_agent.app import ConnectorApp
from connector_agent.config import ConnectorConfig
from connector_agent.wiring import make_tunnels
from shared.config import read_config
from shared.outcome import Outcome
from shared.process import StopRequest
from tests.support.development import TRUST_DOMAIN, Pki
from tests.support.ends import until
from tests.support.ports import free_port

LOOPBACK = ["127.0.0.0/8"]


class Lines(list[dict[str, Any]]):
    """An access log."""

    def line(self, record: Any) -> None:
        self.append(dict(record))

    def text(self, line: bytes) -> None: ...


@dataclass
class Chain:
    """`relay_document` and `connector_document` may be changed and reloaded; ports are those that were free."""

    folder: Path
    pki: Pki
    relay_document: dict[str, Any]
    connector_document: dict[str, Any]
    relay: RelayApp
    connector: ConnectorApp
    relay_lines: Lines
    connector_lines: Lines

    async def reload_relay(self) -> Outcome:
        (self.folder / "relay.yaml").write_text(yaml.safe_dump(self.relay_document))
        return await self.relay.reload()

    async def reload_connector(self) -> Outcome:
        (self.folder / "connector.yaml").write_text(yaml.safe_dump(self.connector_document))
        return await self.connector.reload()

    @property
    def doors(self) -> Doors:
        assert self.relay.doors is not None
        return self.relay.doors

    def lose_tunnels(self) -> None:
        for session in self.relay.registry.sessions():
            session.link.abort()


def tcp_route(name: str, port: int, **more: Any) -> dict[str, Any]:
    """A TCP route for anybody on this machine, to the target of the same name."""
    return {
        "name": name,
        "listen": f"127.0.0.1:{port}",
        "networks": LOOPBACK,
        "to": {"location": "walldorf", "target": name},
    } | more


@asynccontextmanager
async def chain(
    folder: Path,
    routes: list[dict[str, Any]],
    targets: list[dict[str, Any]],
    *,
    tenants: dict[str, Any] | None = None,
    senders: list[dict[str, Any]] | None = None,
    ingress: list[dict[str, Any]] | None = None,
    http_routes: list[dict[str, Any]] | None = None,
    tunnel: dict[str, Any] | None = None,
    **relay_keys: Any,
) -> AsyncIterator[Chain]:
    """A relay with these TCP routes for tenant acme, and a connector with these targets; both are up."""
    pki = Pki(folder)
    pair, leaf = pki.relay("localhost", "127.0.0.1", "tunnel.test"), pki.connector()
    tunnel_port = free_port()
    if tunnel and "listen" in tunnel:
        tunnel_port = int(tunnel["listen"].rpartition(":")[2])
    tls = {"certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(pki.ca)}
    relay_document = {
        "state_dir": "relay-state",
        "trust_domain": TRUST_DOMAIN,
        "tunnel": {"listen": f"127.0.0.1:{tunnel_port}", "tls": tls} | (tunnel or {}),
        "ingress": ingress or [{"listen": "127.0.0.1:0"}],
        "log": {"access": "off"},
        "tenants": {
            "acme": {
                "locations": ["walldorf"], "senders": senders or [], "tcp_routes": routes, "routes": http_routes or [],
            }
        } | (tenants or {}),
    } | relay_keys  # fmt: skip
    connector_document = {
        "relays": [f"wss://localhost:{tunnel_port}"],
        "state_dir": "connector-state",
        "tls": {"certificate": str(leaf.certificate), "key": str(leaf.key), "ca": str(pki.ca)},
        "log": {"access": "off"},
        "targets": [{"probe": {"kind": "none"}} | target for target in targets],  # tests count what arrives there
    }
    (folder / "relay.yaml").write_text(yaml.safe_dump(relay_document))
    (folder / "connector.yaml").write_text(yaml.safe_dump(connector_document))
    relay = RelayApp(folder / "relay.yaml", read_config(folder / "relay.yaml", RelayConfig))
    connector = ConnectorApp(
        folder / "connector.yaml", read_config(folder / "connector.yaml", ConnectorConfig),
        lambda app: make_tunnels(app, {}),
    )  # fmt: skip
    relay_lines, connector_lines = Lines(), Lines()
    relay.access_log = cast(Any, relay_lines)
    relay.ingress.context = make_context(relay)
    connector.tcp._access_log = connector_lines
    try:
        await relay.start(StopRequest())
        await connector.start(StopRequest())
        await until(lambda: connector.tunnels.open_count)
        yield Chain(
            folder, pki, relay_document, connector_document, relay, connector, relay_lines, connector_lines
        )  # fmt: skip
    finally:
        await connector.stop()
        await relay.stop()
        await asyncio.sleep(0.01)
