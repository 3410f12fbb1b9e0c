"""The configs that Qanat is measured with: all is on that people run it with."""

from __future__ import annotations

from typing import Any

from benchmarks.load.wrk import sender
from benchmarks.site import HOST, Site
from benchmarks.systems.base import FILES, Shape
from shared.secrets import hash_password, hash_secret

TENANT, LOCATION, CONNECTOR = "bench", "here", "c1"
IDLE_TENANT, IDLE_LOCATION = "idle", "many"
CROWD = "/many"
"""Below it each location of the crowd has a path of its own: /many/7/push, /many/7/sink."""
TRUST_DOMAIN = "bench.localhost"
_BODY = "2GiB"


def relay_config(site: Site, ports: dict[str, int], shape: Shape) -> dict[str, Any]:
    """relay.yaml, with as many routes and senders as the shape says; only the first two push, and to one route."""
    pki = site.folder / "pki"
    return {
        "state_dir": str(site.folder / "relay-state"),
        "trust_domain": TRUST_DOMAIN,
        "tunnel": {
            "listen": f"{site.cloud.address}:{ports['tunnel']}",
            "tls": {
                "certificate": str(pki / "relay.pem"),
                "key": str(pki / "relay.key"),
                "client_ca": str(pki / "ca.pem"),
            },
            "limits": {"handshakes_per_source": 512},  # all connectors have one address here
        },
        "ingress": [
            {
                "listen": f"127.0.0.1:{ports['tls']}",
                "tls": {"certificate": str(site.certificate), "key": str(site.key)},
            },
            {"listen": f"127.0.0.1:{ports['plain']}"},
        ],
        "observe": {"listen": f"127.0.0.1:{ports['relay']}"},
        "log": {"level": "warning", "access": "stdout"},
        "limits": {"connections_per_source": 16384},  # all of them come from one address here
        "tenants": {
            TENANT: {
                "locations": [LOCATION, *(crowd_location(number) for number in range(shape.locations))],
                "senders": [_sender(number, shape) for number in range(shape.senders)],
                "routes": [_route(target, f"/{target}", target, shape) for target in site.targets]
                + [_route(f"other-{number}", f"/other/{number}", "push", shape) for number in range(1, shape.routes)]
                + [one for number in range(shape.locations) for one in _crowd_routes(site, number, shape)],
                "tcp_routes": [_tcp_route(ports)] if site.file_server is not None else [],
            },
            IDLE_TENANT: {"locations": [IDLE_LOCATION]},
        },
    }


def _sender(number: int, shape: Shape) -> dict[str, Any]:
    name, password = sender(number)
    password_hash = (hash_password if shape.slow_passwords else hash_secret)(password)
    return {
        "name": name,
        "basic": {"username": name, "password_hash": password_hash},
        "limits": {"rate": "1000000/s"},
    }


def crowd_location(number: int) -> str:
    """The location of one connector of the crowd."""
    return f"crowd-{number}"


def crowd_identities(shape: Shape) -> list[str]:
    """TENANT/LOCATION/NAME of each connector of the crowd: one in each of its locations, or all idle in one."""
    pushing = [f"{TENANT}/{crowd_location(number)}/c" for number in range(shape.locations)]
    return pushing + [f"{IDLE_TENANT}/{IDLE_LOCATION}/c{number}" for number in range(shape.idle_connectors)]


def crowd_tunnels(shape: Shape) -> list[str]:
    """The identity of each tunnel of the crowd, as the stem of its files."""
    stems = ["connector." + one.replace("/", ".") for one in crowd_identities(shape)]
    return stems[: shape.locations] + stems[shape.locations :] * shape.tunnels_each


def _crowd_routes(site: Site, number: int, shape: Shape) -> list[dict[str, Any]]:
    return [
        _route(f"crowd-{number}-{target}", f"{CROWD}/{number}/{target}", target, shape, crowd_location(number))
        for target in site.targets
    ]


def _route(name: str, path: str, target: str, shape: Shape, location: str = LOCATION) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"host": HOST, "path": path},
        "senders": [sender(number)[0] for number in range(min(shape.senders, 2))],
        "to": {"location": location, "target": target},
        "limits": {"body": _BODY, "rate": "1000000/s", "in_flight": 16384},
        "timeout": "300s",
    }


def _tcp_route(ports: dict[str, int]) -> dict[str, Any]:
    return {
        "name": FILES,
        "listen": f"127.0.0.1:{ports[FILES]}",
        "networks": ["127.0.0.0/8"],
        "to": {"location": LOCATION, "target": FILES},
    }


def connector_config(site: Site, ports: dict[str, int]) -> dict[str, Any]:
    """connector.yaml: both targets, as many connections to each as nginx would open."""
    pki, name = site.folder / "pki", f"connector.{TENANT}.{LOCATION}.{CONNECTOR}"
    return {
        "relays": [f"wss://{site.cloud.address}:{ports['tunnel']}"],
        "state_dir": str(site.folder / "connector-state"),
        "tls": {"certificate": str(pki / f"{name}.pem"), "key": str(pki / f"{name}.key"), "ca": str(pki / "ca.pem")},
        "observe": {"listen": f"127.0.0.1:{ports['connector']}"},
        "log": {"level": "warning", "access": "stdout"},
        "targets": [
            {
                "name": target,
                "url": f"http://127.0.0.1:{port}",
                "allow": [{"methods": ["POST"], "path": path, "sub_paths": True} for path in (f"/{target}", CROWD)],
                "limits": {"body": _BODY, "connections": 1024},
                "timeouts": {"first_byte": "300s"},
            }
            for target, port in site.targets.items()
        ]
        + ([] if site.file_server is None else [{"name": FILES, "tcp": f"127.0.0.1:{site.file_server.port}"}]),
    }
