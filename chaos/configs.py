"""The configs of the suite's relay and connectors: two tenants, one with two connectors, one with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chaos.network import Network
from chaos.pushes import IDEMPOTENT, ROUTES, TENANTS
from shared.secrets import hash_secret, new_secret
from tests.support.ports import free_port

ACME, GLOBEX = TENANTS
LOCATION: Final = "dc"
TRUST_DOMAIN: Final = "qanat.test"
TARGET: Final = "monitoring"
SENDER: Final = "cloud"

CONNECTORS: Final[Mapping[str, str]] = {"c1": ACME, "c2": ACME, "x1": GLOBEX}
"""Whose each connector is: acme loses one and has another, globex has but one."""

TIMEOUT: Final = 8.0
"""Seconds of a route: longer than it takes to notice that a tunnel is dead, shorter than a sender's patience."""

BUDGET_MIB: Final = 64
"""Of memory, of the relay and of each connector."""


def host_of(tenant: str) -> str:
    """The host name that a tenant's senders push to."""
    return f"push.{tenant}.test"


@dataclass(slots=True)
class Keys:
    """Ports, and the senders' tokens."""

    ports: dict[str, int]
    tokens: dict[str, str]

    @classmethod
    def make(cls) -> Keys:
        names = ("tunnel", "ingress", "observe", *CONNECTORS, *TENANTS)
        return cls({name: free_port() for name in names}, {tenant: new_secret() for tenant in TENANTS})


def relay_config(folder: Path, network: Network, keys: Keys, leaf_lifetime: str) -> dict[str, Any]:
    """relay.yaml: its own CA, one TLS ingress, and for each tenant a plain and an idempotent route."""
    names = dict.fromkeys(network.relay_name(connector) for connector in CONNECTORS)
    return {
        "state_dir": str(folder / "relay" / "state"),
        "trust_domain": TRUST_DOMAIN,
        "identity": {"leaf_lifetime": leaf_lifetime},
        "tunnel": {
            "listen": f"{'0.0.0.0' if network.has_lines else '127.0.0.1'}:{keys.ports['tunnel']}",
            "advertise": [f"{name}:{keys.ports['tunnel']}" for name in names],
        },
        "ingress": [
            {
                "listen": f"{network.ingress}:{keys.ports['ingress']}",
                "tls": {"certificate": str(folder / "ingress.pem"), "key": str(folder / "ingress.key")},
            }
        ],
        "observe": {"listen": f"127.0.0.1:{keys.ports['observe']}"},
        "memory": {"budget": f"{BUDGET_MIB}MiB"},
        "tenants": {tenant: _tenant(tenant, keys.tokens[tenant]) for tenant in TENANTS},
    }


def _tenant(tenant: str, token: str) -> dict[str, Any]:
    return {
        "locations": [LOCATION],
        "senders": [{"name": SENDER, "bearer": {"token_hash": hash_secret(token)}}],
        "routes": [
            {
                "name": route,
                "match": {"host": host_of(tenant), "path": f"/{route}"},
                "senders": [SENDER],
                "to": {"location": LOCATION, "target": TARGET},
                "timeout": f"{TIMEOUT:g}s",
                "idempotent": route == IDEMPOTENT,
            }
            for route in ROUTES
        ],
    }


def connector_config(folder: Path, network: Network, keys: Keys, name: str) -> dict[str, Any]:
    """connector.yaml: the tenant's target, and a header that tells it who delivered."""
    return {
        "relays": [f"wss://{network.relay_name(name)}:{keys.ports['tunnel']}"],
        "state_dir": str(folder / name / "state"),
        "join": {"token_file": str(folder / f"{name}.token")},
        "observe": {"listen": f"127.0.0.1:{keys.ports[name]}"},
        "memory": {"budget": f"{BUDGET_MIB}MiB"},
        "targets": [
            {
                "name": TARGET,
                "url": f"http://{network.targets}:{keys.ports[CONNECTORS[name]]}",
                "allow": [{"methods": ["POST"], "path": f"/{route}"} for route in ROUTES],
                "headers": {"set": {"X-Connector": name}},
            }
        ],
    }


def full_name(connector: str) -> str:
    """tenant/location/connector."""
    return f"{CONNECTORS[connector]}/{LOCATION}/{connector}"


def timeouts() -> dict[str, float]:
    """Of each route."""
    return dict.fromkeys(ROUTES, TIMEOUT)


def connectors_of(tenants: Sequence[str]) -> list[str]:
    return [name for name, tenant in CONNECTORS.items() if tenant in tenants]
