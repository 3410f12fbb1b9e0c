"""Qanat itself, with everything on: authentication, quotas, metrics, access lines to a file, mTLS in the tunnel."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.load.wrk import sender
from benchmarks.programs import ROOT, BenchmarkError, Process
from benchmarks.side import Side, free_port
from benchmarks.site import HOST, Site
from benchmarks.systems.base import BYSTANDER, FILES, Endpoint, Running, Shape, both_doors
from shared.secrets import hash_password, hash_secret

TENANT, LOCATION, CONNECTOR = "bench", "here", "c1"
IDLE_TENANT, IDLE_LOCATION = "idle", "many"
TRUST_DOMAIN = "bench.localhost"
_BODY = "2GiB"
_READY_S = 20.0


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
            "limits": {"tunnels_per_connector": 1000},  # ten thousand idle ones are held by few identities here
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
                "locations": [LOCATION],
                "senders": [_sender(number, shape) for number in range(shape.senders)],
                "routes": [_route(target, f"/{target}", target, shape) for target in site.targets]
                + [_route(f"other-{number}", f"/other/{number}", "push", shape) for number in range(1, shape.routes)],
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


def _route(name: str, path: str, target: str, shape: Shape) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"host": HOST, "path": path},
        "senders": [sender(number)[0] for number in range(min(shape.senders, 2))],
        "to": {"location": LOCATION, "target": target},
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
                "allow": [{"methods": ["POST"], "path": f"/{target}", "sub_paths": True}],
                "limits": {"body": _BODY, "connections": 1024},
                "timeouts": {"first_byte": "300s"},
            }
            for target, port in site.targets.items()
        ]
        + ([] if site.file_server is None else [{"name": FILES, "tcp": f"127.0.0.1:{site.file_server.port}"}]),
    }


class Qanat:
    """One relay, one connector with its two tunnels."""

    name = "qanat"

    def missing(self) -> list[str]:
        commands = ("cloud-relay", "connector-agent")
        return [name for name in commands if not _command(name).exists()]

    def start(self, site: Site, shape: Shape) -> Running:
        ports = {name: free_port() for name in ("tunnel", "tls", "plain", FILES, "relay", "connector")}
        idle = [f"c{number}" for number in range(shape.idle_connectors)]
        _make_pki(site, [f"{TENANT}/{LOCATION}/{CONNECTOR}", *(f"{IDLE_TENANT}/{IDLE_LOCATION}/{one}" for one in idle)])
        relay = self._start(site, site.cloud, "relay", [str(_command("cloud-relay")), "serve"],
                            relay_config(site, ports, shape))  # fmt: skip
        connector = self._start(site, site.premises, "connector", [str(_command("connector-agent")), "run"],
                                connector_config(site, ports))  # fmt: skip
        _wait_until_ready(relay, site.cloud, ports["relay"])
        _wait_until_ready(connector, site.premises, ports["connector"])
        time.sleep(0.5)  # the second tunnel comes after the first
        doors = both_doors(site.targets, ports["tls"], ports["plain"])
        if shape.bystander:
            doors |= self._start_bystander(site, shape)
        if site.file_server is not None:
            doors[FILES, False] = Endpoint(ports[FILES], is_tls=False)
        details = {
            "pki": str(site.folder / "pki"),
            "tunnel_port": str(ports["tunnel"]),
            "identities": " ".join(f"connector.{IDLE_TENANT}.{IDLE_LOCATION}.{one}" for one in idle),
        }
        return Running(doors, [relay, connector], {"relay": relay, "connector": connector}, details)

    def _start_bystander(self, site: Site, shape: Shape) -> dict[tuple[str, bool], Endpoint]:
        """A pair of its own to the same targets, in a folder of its own; its doors."""
        folder = site.folder / BYSTANDER
        folder.mkdir(mode=0o755)
        own = replace(site, folder=folder)
        running = self.start(own, replace(shape, bystander=False))
        return {(BYSTANDER, is_tls): running.endpoint("push", is_tls=is_tls) for is_tls in (False, True)}

    def _start(self, site: Site, side: Side, name: str, argv: list[str], config: dict[str, Any]) -> Process:
        path = site.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return site.start(side, [*argv, "--config", str(path)], name)


def _command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _make_pki(site: Site, connectors: list[str]) -> None:
    argv = [sys.executable, str(ROOT / "certs" / "generate.py"), "--out", str(site.folder / "pki"), "--days", "1"]
    argv += ["--trust-domain", TRUST_DOMAIN]
    for connector in connectors:
        argv += ["--connector", connector]
    for host in dict.fromkeys((HOST, "127.0.0.1", site.cloud.address)):
        argv += ["--host", host]
    result = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    if result.returncode != 0:
        raise BenchmarkError(f"certs/generate.py: {result.stderr[-400:]}")


def _wait_until_ready(process: Process, side: Side, port: int) -> None:
    """Waits for /readyz to answer 200.

    Raises:
        BenchmarkError: the process ended, or it took too long.
    """

    def is_ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.is_running:
        if side.call(is_ready):
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{process.name} is not ready\n{process.tail()}")
