"""A site whose relay is its own CA, and whose connectors join by token."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.system.kit import LOCATION, TENANT, TRUST_DOMAIN, Site
from tests.system.programs import ROOT, Program, command, environment, free_port, until

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
        """Make the CA."""
        self.write("relay")
        await self.relay_says("init")

    async def invite(self, name: str = "c1", *options: str) -> str:
        """A join token for a connector, in the file that its config names."""
        made = await self.relay_says("tokens", "create", connector_name(name), *options)
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
        found: dict[str, Any] = json.loads(err if exit_code else out)
        return found

    def launch_dying(self, program: str, config: str, point: str, *arguments: str) -> Program:
        """Start a program that kills itself with SIGKILL where `point` is reached first."""
        path = str(self.write(config))
        argv = (command("python"), str(CRASHING), point, program, *arguments, "--config", path)
        return self.run(f"{config}-dying", *argv)

    async def fully_connected(self, name: str = "c1", generation: int | None = None) -> None:
        """Until a connector has joined and its tunnels are up."""
        wanted = self.connector_config(name).get("tunnels", 2)

        async def is_there() -> bool:
            found = (await self.relay_says("connectors", "list"))["connectors"]
            return any(
                one["connector"] == connector_name(name)
                and one["tunnels"] >= wanted
                and generation in (None, one["generation"])
                for one in found
            )

        await until(is_there, f"tunnels of {name}")


__all__ = ["TRUST_DOMAIN", "ManagedSite", "connector_name"]
