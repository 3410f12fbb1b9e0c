"""Relay and connectors as real processes, in a folder and on ports of their own, with the configs that a test wants.

async with Site(folder, pki) as site:
    site.expose(target)
    await site.start()
    answer = await site.push(body=b"42")
    assert answer.status == 200
    await site.relay.kill()
"""

from __future__ import annotations

import base64
import io
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp
import yaml
from multidict import CIMultiDictProxy

from shared.control import control_request
from shared.errors import FAULTS
from shared.secrets import hash_secret, new_secret
from tests.support.ports import free_port
from tests.system.programs import Program, command, environment, until
from tests.system.targets import Target

TENANT: Final = "acme"
LOCATION: Final = "walldorf"
TRUST_DOMAIN: Final = "qanat.test"
TARGET: Final = "main"
USER: Final = "s4"


class Answer(NamedTuple):
    """What a sender got."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def fault(self) -> str:
        """The code of our own error, "" for a target's answer."""
        return self.headers.get("Qanat-Error", "")


def assert_honest(answer: Answer) -> None:
    """An error of ours must be one of the catalogue, with its status, its origin and a request id."""
    fault = FAULTS[answer.fault]
    assert answer.status == fault.status
    assert answer.headers["Qanat-Error-Origin"] == fault.origin.value
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert ("Retry-After" in answer.headers) >= fault.retry_after


class Site:
    """One relay and its connectors. The configs may be changed until the programs are started, and after that too."""

    def __init__(self, folder: Path, pki: Path) -> None:
        self.folder = folder
        self.pki = pki
        self.password = new_secret()
        self.token = new_secret()
        self.ports = {name: free_port() for name in ("tunnel", "tls", "plain", "observe")}
        self.relay_config = self._relay_config()
        self.connector_configs: dict[str, dict[str, Any]] = {}
        self.programs: list[Program] = []
        self.workers = 1
        """Processes that serve as the relay."""
        self.connectors: dict[str, Program] = {}
        self._relay: Program | None = None
        self._targets: list[dict[str, Any]] = []
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trust = ssl.create_default_context(cafile=str(self.pki / "ca.pem"))
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        self._http = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
        for program in reversed(self.programs):
            await program.kill()
        if kind is None:
            for program in self.programs:
                program.assert_tidy()

    # --- configs

    def _relay_config(self) -> dict[str, Any]:
        pki = self.pki
        return {
            "state_dir": "relay-state",
            "trust_domain": TRUST_DOMAIN,
            "tunnel": {
                "listen": f"127.0.0.1:{self.ports['tunnel']}",
                "tls": {
                    "certificate": str(pki / "relay.pem"),
                    "key": str(pki / "relay.key"),
                    "client_ca": str(pki / "ca.pem"),
                },
            },
            "ingress": [
                {
                    "listen": f"127.0.0.1:{self.ports['tls']}",
                    "tls": {"certificate": str(pki / "ingress.pem"), "key": str(pki / "ingress.key")},
                },
                {"listen": f"127.0.0.1:{self.ports['plain']}"},
            ],
            "observe": {"listen": f"127.0.0.1:{self.ports['observe']}"},
            "tenants": {
                TENANT: {
                    "locations": [LOCATION],
                    "senders": [
                        {"name": "s4", "basic": {"username": USER, "password_hash": hash_secret(self.password)}},
                        {"name": "ibp", "bearer": {"token_hash": hash_secret(self.token)}},
                    ],
                    "routes": [self.make_route("all", "/")],
                }
            },
        }

    def make_route(self, name: str, path: str, target: str = TARGET, **more: Any) -> dict[str, Any]:
        """A route for both senders at https://localhost/<path>."""
        return {
            "name": name,
            "match": {"host": "localhost", "path": path},
            "senders": ["s4", "ibp"],
            "to": {"location": LOCATION, "target": target},
        } | more

    @property
    def route(self) -> dict[str, Any]:
        """The config of the route `all`, to be changed in place."""
        found: dict[str, Any] = self.relay_config["tenants"][TENANT]["routes"][0]
        return found

    def expose(self, target: Target | str, name: str = TARGET, **more: Any) -> dict[str, Any]:
        """Add a target (or a URL) to every connector; its config, to be changed in place."""
        url = target if isinstance(target, str) else target.url
        allow = [{"methods": ["GET", "HEAD", "POST", "PUT"], "path": "/", "sub_paths": True}]
        config = {"name": name, "url": url, "allow": allow} | more
        self._targets.append(config)
        return config

    def expose_tcp(self, name: str, port: int, route: dict[str, Any] | None = None, **target: Any) -> int:
        """A tcp target of every connector and a route to it, for anybody on this machine; the route's port."""
        listen = free_port()
        self._targets.append({"name": name, "tcp": f"127.0.0.1:{port}"} | target)
        made = {
            "name": name,
            "listen": f"127.0.0.1:{listen}",
            "networks": ["127.0.0.0/8"],
            "to": {"location": LOCATION, "target": name},
        } | (route or {})
        self.relay_config["tenants"][TENANT].setdefault("tcp_routes", []).append(made)
        return listen

    def connector_config(self, name: str = "c1") -> dict[str, Any]:
        """The config of one connector, to be changed in place."""
        if name not in self.connector_configs:
            leaf = self.pki / f"connector.{TENANT}.{LOCATION}.{name}"
            self.ports[name] = free_port()
            self.connector_configs[name] = {
                "relays": [f"wss://localhost:{self.ports['tunnel']}"],
                "state_dir": f"{name}-state",
                "tls": {"certificate": f"{leaf}.pem", "key": f"{leaf}.key", "ca": str(self.pki / "ca.pem")},
                "observe": {"listen": f"127.0.0.1:{self.ports[name]}"},
                "targets": self._targets,
            }
        return self.connector_configs[name]

    def write(self, name: str) -> Path:
        """Write the config of the relay ("relay") or of a connector; its path."""
        config = self.relay_config if name == "relay" else self.connector_config(name)
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    # --- programs

    @property
    def relay(self) -> Program:
        assert self._relay is not None
        return self._relay

    @property
    def connector(self) -> Program:
        """The connector c1."""
        return self.connectors["c1"]

    def run(self, name: str, *argv: str, variables: dict[str, str] | None = None) -> Program:
        """Start a program that is ended with the site."""
        program = Program(name, argv, self.folder, variables)
        self.programs.append(program)
        return program

    def launch_relay(self, **variables: str) -> Program:
        """Start the relay, and do not wait for it."""
        argv = [command("cloud-relay"), "serve", "--config", str(self.write("relay"))]
        if self.workers > 1:
            argv += ["--workers", str(self.workers)]
        self._relay = self.run("relay", *argv, variables=environment(**variables))
        return self._relay

    def launch_connector(self, name: str = "c1", **variables: str) -> Program:
        """Start a connector, and do not wait for it."""
        config = str(self.write(name))
        argv = (command("connector-agent"), "run", "--config", config)
        program = self.connectors[name] = self.run(name, *argv, variables=environment(**variables))
        return program

    async def start_relay(self) -> Program:
        """Start the relay; it listens when this returns."""
        program = self.launch_relay()
        await self.relay_is_ready()
        return program

    async def start_connector(self, name: str = "c1", **variables: str) -> Program:
        """Start a connector; all its tunnels are up when this returns."""
        program = self.launch_connector(name, **variables)
        await self.connector_is_ready(name)
        return program

    async def start(self) -> None:
        """The relay and the connector c1."""
        self.launch_relay()
        self.launch_connector()
        await self.relay_is_ready()
        await self.connector_is_ready()

    async def relay_is_ready(self) -> None:
        await until(lambda: self.observe(self.relay, "observe"), "readiness of the relay")

    async def connector_is_ready(self, name: str = "c1") -> None:
        wanted = self.connector_config(name).get("tunnels", 2)

        async def is_ready() -> bool:
            report = await self.observe(self.connectors[name], name)
            return bool(report and report["tunnels"] >= wanted)

        await until(is_ready, f"tunnels of {name}")

    async def observe(self, program: Program, port: str, path: str = "/readyz") -> dict[str, Any] | None:
        """What /readyz says, None as long as it is not 200. AssertionError when the program has ended."""
        assert program.is_running, f"{program} ended by itself\n{program.err}"
        try:
            async with self.http.get(f"http://127.0.0.1:{self.ports[port]}{path}") as answer:
                found: dict[str, Any] = await answer.json(content_type=None) if path == "/readyz" else {"alive": True}
                return found if answer.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def status(self, name: str = "relay") -> dict[str, Any]:
        """What `status --json` is made of."""
        answer = await control_request(self.folder / f"{name}-state" / "control.sock", "GET", "/v1/status")
        assert isinstance(answer, dict)
        return answer

    async def command(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        """What the relay's control socket answers, whichever process has it. CommandError if it refuses."""
        path = self.folder / "relay-state" / "control.sock"
        return await control_request(path, method, url, body, patience=60.0)

    async def upgrade(self) -> int:
        """Let the relay hand over to a new process; the number of the new one."""
        answer = await self.command("POST", "/v1/upgrade")
        return int(answer["new"]["pid"])

    # --- pushes

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{USER}:{self.password}".encode()).decode()

    @property
    def bearer(self) -> str:
        return f"Bearer {self.token}"

    def url(self, path: str = "/push") -> str:
        """By TLS."""
        return f"https://localhost:{self.ports['tls']}{path}"

    async def push(
        self,
        path: str = "/push",
        body: Any = b"value 42",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        authorization: str | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """One push by TLS, tried once. aiohttp.ClientError when there is no answer, TimeoutError when it is late."""
        sent = {"Authorization": authorization or self.basic} | (headers or {})
        limit = aiohttp.ClientTimeout(total=timeout)
        if isinstance(body, bytes) and len(body) > 1 << 20:
            body = io.BytesIO(body)  # aiohttp warns of larger ones
        async with self.http.request(
            method, self.url(path), data=body, headers=sent, timeout=limit, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())
