"""A site whose relay is its own CA, and whose connectors join by token."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud_relay.config import RelayConfig
from cloud_relay.identity.desk import Desk, perform
from cloud_relay.identity.found import found
from cloud_relay.identity.office import open_office
from cloud_relay.identity.upkeep import Upkeep
from shared.clock import TrustedClock
from shared.config import read_config
from shared.control import control_request
from tests.support.ports import free_port
from tests.system.kit import LOCATION, TENANT, TRUST_DOMAIN, Site
from tests.system.programs import ROOT, Program, command, environment, until

CRASHING = ROOT / "tests" / "support" / "crashing.py"


def connector_name(name: str) -> str:
    return f"{TENANT}/{LOCATION}/{name}"


class ManagedSite(Site):
    """As a Site; `init` makes the CA, `invite` a join token for a connector, which it uses at its first start."""

    def __init__(self, folder: Path, pki: Path) -> None:
        super().__init__(folder, pki)
        del self.relay_config["tunnel"]["tls"]
        self.relay_config["tunnel"]["advertise"] = [f"localhost:{self.ports['tunnel']}"]

    def lifetimes(self, **seconds: str) -> None:
        """The config's identity."""
        self.relay_config["identity"] = dict(seconds)

    def connector_config(self, name: str = "c1") -> dict[str, Any]:
        if name not in self.connector_configs:
            self.ports[name] = free_port()
            self.connector_configs[name] = {
                "relays": [f"wss://localhost:{self.ports['tunnel']}"],
                "state_dir": f"{name}-state",
                "join": {"token_file": f"{name}.token"},
                "observe": {"listen": f"127.0.0.1:{self.ports[name]}"},
                "targets": self._targets,
            }
        return self.connector_configs[name]

    async def init(self) -> None:
        """Make the CA, as the command does."""
        self.write("relay")
        await found(self.folder / "relay-state", TRUST_DOMAIN, "r1", datetime.now(UTC))

    async def ask(self, command: str, **asked: Any) -> dict[str, Any]:
        """One command about identity: of the relay, or on its state while it does not run. Quicker than a process."""
        if self._relay is not None and self._relay.is_running:
            return await control_request(
                self.folder / "relay-state" / "control.sock", "POST", f"/v1/identity/{command}", asked
            )
        config = read_config(self.write("relay"), RelayConfig).config
        office = await open_office(config, TrustedClock())
        try:
            upkeep = Upkeep(office.registrar, office.roll_over, office.own, lambda: ["localhost"], lambda: None)
            return await perform(Desk(office, lambda: config, upkeep), command, asked)
        finally:
            await office.close()

    async def invite(self, name: str = "c1", targets: list[str] | None = None) -> str:
        """A join token for a connector, in the file that its config names."""
        made = await self.ask("tokens-create", connector=connector_name(name), targets=targets)
        token = str(made["join_token"])
        file = self.folder / f"{name}.token"
        file.touch(mode=0o600)
        file.write_text(token + "\n")
        self.connector_config(name)
        return token

    async def relay_says(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """What `cloud-relay` prints; the problem, if it exits otherwise."""
        return await self.run_json("cloud-relay", "relay", *arguments, exit_code=exit_code)

    async def connector_says(self, name: str, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """What `connector-agent` prints."""
        return await self.run_json("connector-agent", name, *arguments, exit_code=exit_code)

    async def run_json(self, program: str, config: str, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        argv = (command(program), *arguments, "--config", str(self.folder / f"{config}.yaml"), "--json")
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=self.folder, env=environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == exit_code, f"{arguments}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        answer: dict[str, Any] = json.loads(err if exit_code else out)
        return answer

    def launch_dying(self, program: str, config: str, point: str, *arguments: str) -> Program:
        """Start a program that kills itself with SIGKILL where `point` is reached first."""
        path = str(self.write(config))
        argv = (command("python"), str(CRASHING), point, program, *arguments, "--config", path)
        return self.run(f"{config}-dying", *argv)

    async def fully_connected(self, name: str = "c1", generation: int | None = None) -> None:
        """Until a connector has joined and its tunnels are up."""
        wanted = self.connector_config(name).get("tunnels", 2)

        async def is_there() -> bool:
            listed = (await self.ask("connectors-list"))["connectors"]
            return any(
                one["connector"] == connector_name(name)
                and one["tunnels"] >= wanted
                and generation in (None, one["generation"])
                for one in listed
            )

        await until(is_there, f"tunnels of {name}")
