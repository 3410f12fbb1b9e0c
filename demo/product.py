"""The real passage: a development PKI, `cloud-relay serve` and `connector-agent run`, with configs made here."""

from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from demo.course import basic
from demo.processes import ROOT, Child, DemoError, start, wait_until
from demo.receiver import OTLP_PATH, REMOTE_WRITE_PATH
from demo.settings import SenderSettings
from shared.secrets import hash_secret, new_secret

TENANT, LOCATION, CONNECTOR, TARGET = "demo", "here", "c1", "receiver"
TRUST_DOMAIN = "qanat.localhost"
SENDER = "this-machine"
_PATHS = {"otlp": OTLP_PATH, "remote-write": REMOTE_WRITE_PATH}
_TUNNELS = re.compile(r"^qanat_connector_tunnels(?:_open)?(?:\{[^}]*\})? ([0-9.]+)", re.MULTILINE)


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def relay_config(folder: Path, pki: Path, ports: dict[str, int], password_hash: str) -> dict[str, Any]:
    """relay.yaml: one TLS ingress, one sender, a route for each protocol."""
    return {
        "state_dir": str(folder / "relay-state"),
        "trust_domain": TRUST_DOMAIN,
        "tunnel": {
            "listen": f"127.0.0.1:{ports['tunnel']}",
            "advertise": [f"localhost:{ports['tunnel']}"],
            "tls": {
                "certificate": str(pki / "relay.pem"),
                "key": str(pki / "relay.key"),
                "client_ca": str(pki / "ca.pem"),
            },
        },
        "ingress": [
            {
                "listen": f"127.0.0.1:{ports['ingress']}",
                "tls": {"certificate": str(pki / "ingress.pem"), "key": str(pki / "ingress.key")},
            }
        ],
        "observe": {"listen": f"127.0.0.1:{ports['relay-observe']}"},
        "log": {"access": "stdout"},
        "tenants": {
            TENANT: {
                "locations": [LOCATION],
                "senders": [{"name": SENDER, "basic": {"username": SENDER, "password_hash": password_hash}}],
                "routes": [
                    {
                        "name": name,
                        "match": {"host": "localhost", "path": path},
                        "senders": [SENDER],
                        "to": {"location": LOCATION, "target": TARGET},
                        "limits": {"body": "4MiB", "rate": "5000/s", "in_flight": 256},
                    }
                    for name, path in _PATHS.items()
                ],
            }
        },
    }


def connector_config(folder: Path, pki: Path, ports: dict[str, int], target_port: int) -> dict[str, Any]:
    """connector.yaml: one target, of which exactly the two paths may be pushed to."""
    name = f"connector.{TENANT}.{LOCATION}.{CONNECTOR}"
    return {
        "relays": [f"wss://localhost:{ports['tunnel']}"],
        "state_dir": str(folder / "connector-state"),
        "tls": {"certificate": str(pki / f"{name}.pem"), "key": str(pki / f"{name}.key"), "ca": str(pki / "ca.pem")},
        "observe": {"listen": f"127.0.0.1:{ports['connector-observe']}"},
        "log": {"access": "stdout"},
        "targets": [
            {
                "name": TARGET,
                "url": f"http://127.0.0.1:{target_port}",
                "allow": [{"methods": ["POST"], "path": path} for path in _PATHS.values()],
            }
        ],
    }


def command(name: str) -> list[str]:
    """A command of the project's own virtual environment.

    Raises:
        DemoError: it is not installed there.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise DemoError(f"there is no {name} beside {Path(sys.executable).name}: run `make venv` first")
    return [str(path)]


class Product:
    """Relay and connector as processes, in a folder of the demo's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pki = folder / "pki"
        names = ("tunnel", "ingress", "relay-observe", "connector-observe")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._password = new_secret()
        self._relay: Child | None = None
        self._connector: Child | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self, target_port: int) -> None:
        """Makes PKI and configs, starts both programs, waits until a tunnel is up."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0))
        await self._make_pki()
        self._write("relay", relay_config(self._folder, self._pki, self._ports, hash_secret(self._password)))
        self._write("connector", connector_config(self._folder, self._pki, self._ports, target_port))
        self._relay = await self._start("relay", [*command("cloud-relay"), "serve"])
        self._connector = await self._start("connector", [*command("connector-agent"), "run"])
        await wait_until(lambda: self._says("relay", "/readyz"), self._relay, "readiness")
        await wait_until(lambda: self._says("connector", "/readyz"), self._connector, "a tunnel")

    async def _make_pki(self) -> None:
        argv = [sys.executable, str(ROOT / "certs" / "generate.py"), "--out", str(self._pki), "--days", "1"]
        argv += ["--trust-domain", TRUST_DOMAIN, "--connector", f"{TENANT}/{LOCATION}/{CONNECTOR}"]
        maker = await start(self._folder, "pki", argv)
        if await maker.process.wait() != 0:
            raise DemoError(f"the development PKI could not be made\n{maker.tail()}")

    def _write(self, name: str, config: dict[str, Any]) -> None:
        (self._folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    async def _start(self, name: str, argv: list[str]) -> Child:
        return await start(self._folder, name, [*argv, "--config", str(self._folder / f"{name}.yaml")])

    async def _says(self, side: str, path: str) -> bool:
        """Does a side's observe listener answer 200?"""
        return await self._ask(side, path) is not None

    async def _ask(self, side: str, path: str) -> str | None:
        assert self._http is not None
        try:
            async with self._http.get(f"http://127.0.0.1:{self._ports[f'{side}-observe']}{path}") as answer:
                text = await answer.text()
                return text if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    def settings(self, path: str, names: list[str], interval_s: float) -> SenderSettings:
        url = f"https://localhost:{self._ports['ingress']}{path}"
        return SenderSettings(url, str(self._pki / "ca.pem"), basic(SENDER, self._password), names, interval_s)

    async def kill_connector(self) -> None:
        assert self._connector is not None
        self._connector.signal(signal.SIGKILL)
        await self._connector.process.wait()

    async def restart_connector(self) -> float:
        self._connector = await self._start("connector", [*command("connector-agent"), "run"])
        return await wait_until(
            lambda: self._says("connector", "/healthz"), self._connector, "its observe listener", every=0.01
        )

    async def tunnels(self) -> int | None:
        text = await self._ask("connector", "/metrics")
        found = _TUNNELS.findall(text) if text else []
        return round(sum(float(one) for one in found)) if found else None

    async def stop(self) -> None:
        for child in (self._connector, self._relay):
            if child is not None:
                await child.stop()
        if self._http is not None:
            await self._http.close()
