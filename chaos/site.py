"""The site of the fault suite: relay, three connectors, two targets and two tenants' senders, as processes.

Started once for many runs: what a fault breaks, it mends. What was written down is read by `records`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trustme
import yaml

from benchmarks.side import Side
from chaos.configs import (
    CONNECTORS,
    TRUST_DOMAIN,
    Keys,
    connector_config,
    full_name,
    host_of,
    relay_config,
)
from chaos.isolation import small_disk
from chaos.journal import Reader, Writer
from chaos.load import Load
from chaos.network import LOOPBACK, Network
from chaos.pushes import TENANTS
from chaos.sender import Spec
from cloud_relay.identity.found import found
from shared.control import control_request
from shared.exits import CommandError
from tests.support.peers import FOLDER
from tests.system.programs import Program, command, environment, until

LEAF_LIFETIME: Final = "20s"
"""Of the certificates of connectors and relay: renewals go on through every fault."""

RELAY: Final = "relay"
_PRODUCTS: Final = (RELAY, *CONNECTORS)
_DISK_MIB: Final = 128
TUNNELS: Final = 2
"""Of each connector."""


def _faketime() -> Path | None:
    """libfaketime, by which a program sees another wall clock; None without it. The one for programs with threads."""
    places = (FOLDER / "usr/lib", Path("/usr/lib"), Path("/usr/lib64"))
    return next((path for place in places for path in place.glob("**/faketime/libfaketimeMT.so.1")), None)


def why_no_clock() -> str:
    """Why no clock can be set, "" if one can."""
    return "" if _faketime() is not None else "missing: libfaketime (make peers)"


class Site:
    """One relay and all around it, in `folder`, whose path must be short: it holds control sockets."""

    options: tuple[str, ...] = ()
    """Of `cloud-relay serve`."""

    tunnels = TUNNELS
    """Of each connector."""

    held = 0
    """Bytes of the budget that are used while nothing is under way."""

    def __init__(self, folder: Path, network: Network = LOOPBACK) -> None:
        self.folder = folder
        self.network = network
        self.keys = Keys.make()
        self.programs: dict[str, Program] = {}
        self._readers: dict[str, Reader] = {}
        self._orders: dict[str, Writer] = {}
        self._disks = contextlib.ExitStack()
        self._access_lines = Reader(folder / RELAY / "relay.out", strict=False)

    async def start(self) -> None:
        """Start everything; `stop` and `leave` are to be called however this ends."""
        for name in _PRODUCTS:
            self._disks.enter_context(small_disk(self.disk(name), _DISK_MIB))
        self._make_certificate()
        self._write(RELAY, relay_config(self.folder, self.network, self.keys, LEAF_LIFETIME))
        await self._found()
        for tenant in TENANTS:
            self.start_target(tenant)
            self._start_sender(tenant)
        self.launch_relay()
        await self.relay_listens()
        for name in CONNECTORS:
            self._write(name, connector_config(self.folder, self.network, self.keys, name))
            await self._invite(name)
            self.launch_connector(name)
        await self.comes_to_rest(20.0)

    async def stop(self) -> None:
        """End all processes, by their ids."""
        for program in reversed(self.programs.values()):
            await program.kill()

    def leave(self) -> None:
        """After `stop`: nothing of the site's disks is left."""
        self._disks.close()

    # --- programs

    @property
    def relay(self) -> Program:
        return self.programs[RELAY]

    def run(self, name: str, side: Side, *argv: str, variables: dict[str, str] | None = None) -> Program:
        """Start a program on one side; it ends with the site."""
        where = self.disk(name) if name in _PRODUCTS else self.folder
        program = self.programs[name] = Program(name, side.command(list(argv)), where, variables)
        return program

    def disk(self, name: str) -> Path:
        """Where the relay, or a connector, has its state and writes its log."""
        return self.folder / name

    def launch_relay(self) -> Program:
        """Start the relay, and do not wait for it."""
        argv = (command("cloud-relay"), "serve", *self.options, "--config", str(self._config(RELAY)))
        return self.run(RELAY, self.network.cloud, *argv, variables=self._variables(RELAY))

    def launch_connector(self, name: str) -> Program:
        """Start a connector, and do not wait for it."""
        argv = (*self.network.resolver, command("connector-agent"), "run", "--config", str(self._config(name)))
        return self.run(name, self.network.premises, *argv, variables=self._variables(name))

    def start_target(self, tenant: str) -> Program:
        """Start a tenant's target, and do not wait for it."""
        argv = (sys.executable, "-m", "chaos.target", tenant, str(self._journal(f"{tenant}-target")))
        where = (self.network.targets, str(self.keys.ports[tenant]))
        return self.run(f"{tenant}-target", self.network.monitoring, *argv, *where)

    def _start_sender(self, tenant: str) -> None:
        name = f"{tenant}-sender"
        orders = self._journal(f"{name}-orders")
        spec = Spec(
            tenant, host_of(tenant), self.network.ingress, self.keys.ports["ingress"], str(self.folder / "ca.pem"),
            self.keys.tokens[tenant], str(self._journal(name)), str(orders),
        )  # fmt: skip
        path = self.folder / f"{name}.json"
        spec.write(path)
        self._orders[tenant] = Writer(orders)
        self.run(name, self.network.senders, sys.executable, "-m", "chaos.sender", str(path))

    def processes(self, name: str) -> list[int]:
        """A program's process, and those that it has started, by their age."""
        pid = self.programs[name].pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:  # it is gone
            return []
        return [pid, *sorted(map(int, children.split()))]

    async def upgrade_relay(self) -> str:
        """`cloud-relay upgrade`; "", or what it said when it failed."""
        argv = self.network.cloud.command([command("cloud-relay"), "upgrade", "--config", str(self._config(RELAY))])
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        return said.decode() if process.returncode else ""

    async def relay_listens(self) -> float:
        """Until the relay takes senders' connections; when that was."""
        return await self._listens(RELAY, self.network.ingress, self.keys.ports["ingress"], self.network.cloud)

    async def target_listens(self, tenant: str) -> float:
        """Likewise of a target."""
        where = (self.network.targets, self.keys.ports[tenant], self.network.monitoring)
        return await self._listens(f"{tenant}-target", *where)

    async def connector_is_up(self, name: str) -> float:
        """Until a connector's process has started, with a tunnel or without; when that was."""
        return await self._listens(name, "127.0.0.1", self.keys.ports[name], self.network.premises)

    async def _listens(self, name: str, host: str, port: int, side: Side) -> float:
        def knock() -> bool:
            assert self.programs[name].is_running, f"{name} ended by itself\n{self.programs[name].err[-2000:]}"
            try:
                side.connect(port, host=host).close()
            except OSError:
                return False
            return True

        await until(knock, f"{name} listens")
        return time.monotonic()

    # --- pushes

    def push(self, run: str, load: Load) -> None:
        """All senders begin."""
        for orders in self._orders.values():
            orders.write(do="push", run=run, rate=load.rate, largest=load.largest, idle=load.idle)

    def flood(self, tenant: str, pushes: int, size: int) -> None:
        """A tenant's senders make so many large pushes at once."""
        self._orders[tenant].write(do="flood", pushes=pushes, size=size)

    def settle(self, patience: float) -> None:
        """All senders come to an end; each says `settled` then."""
        for orders in self._orders.values():
            orders.write(do="settle", patience=patience)

    def records(self) -> list[dict[str, Any]]:
        """What senders and targets have written down since the last call."""
        return [record for reader in self._readers.values() for record in reader.read()]

    def tries_by_relay(self) -> dict[str, int]:
        """How often the relay tried each try of a sender, by its access lines since the last call."""
        return {
            str(line["sender_request_id"]): int(line.get("attempt", 0))
            for line in self._access_lines.read()
            if "sender_request_id" in line
        }

    # --- state

    async def status(self, name: str) -> dict[str, Any] | None:
        """What `status --json` of the relay or a connector says; None while it does not answer."""
        with contextlib.suppress(CommandError):
            return await control_request(self.disk(name) / "state" / "control.sock", "GET", "/v1/status", patience=2.0)
        return None

    async def comes_to_rest(self, patience: float) -> None:
        """Until every connector has its tunnels, and nothing is under way any more.

        Raises:
            AssertionError: it does not; with what is not as it should be.
        """
        lacking: list[str] = []
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            lacking = await self._unrest()
            if not lacking:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not at rest after {patience:.0f} s: {'; '.join(lacking)}")

    async def _unrest(self) -> list[str]:
        status = await self.status(RELAY)
        if status is None:
            return ["the relay does not answer"]
        open_tunnels = {
            connector["connector"]: [one["state"] for one in connector["tunnels"]]
            for tenant in status["tenants"]
            for location in tenant["locations"]
            for connector in location["connectors"]
        }
        found = [
            f"{name} has tunnels {open_tunnels.get(name, [])}"
            for name in CONNECTORS
            if open_tunnels.get(name, []) != ["open"] * self.tunnels
        ]
        connections = sum(one.get("connections", 0) for one in status["listeners"])
        for text, count in (
            ("pushes in flight", status["in_flight"]),
            ("bytes held", max(0, status["memory"]["used"] - self.held)),
            ("sender connections", connections),
        ):
            if count:
                found.append(f"the relay has {count} {text}")
        return found

    # --- clocks

    def set_clock(self, name: str, offset: str | None) -> None:
        """By how much the wall clock of a program is off ("+40d"), from its next start on if it has none of its own
        yet; None takes that away again, at its next start."""
        clock = self.folder / f"{name}.clock"
        if offset is None:
            clock.unlink()
        else:
            clock.write_text(f"{offset}\n")

    def _variables(self, name: str) -> dict[str, str]:
        clock = self.folder / f"{name}.clock"
        if not clock.exists():
            return environment()
        return environment(
            LD_PRELOAD=str(_faketime()), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )  # fmt: skip

    # --- files

    def _config(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def _write(self, name: str, config: dict[str, Any]) -> None:
        self._config(name).write_text(yaml.safe_dump(config, sort_keys=False))

    def _journal(self, name: str) -> Path:
        path = self.folder / f"{name}.journal"
        if not name.endswith("-orders"):
            self._readers.setdefault(name, Reader(path))
        return path

    def _make_certificate(self) -> None:
        """For the ingress."""
        authority = trustme.CA()
        leaf = authority.issue_cert(*(host_of(tenant) for tenant in TENANTS))
        (self.folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        (self.folder / "ingress.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key = self.folder / "ingress.key"
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())

    async def _found(self) -> None:
        """The relay's own CA."""
        await found(self.disk(RELAY) / "state", TRUST_DOMAIN, "r1", datetime.now(UTC))

    async def _invite(self, name: str) -> None:
        """A join token for a connector, which it uses at its first start."""
        control = self.disk(RELAY) / "state" / "control.sock"
        made = await control_request(
            control, "POST", "/v1/identity/tokens-create", {"connector": full_name(name), "targets": None}
        )
        file = self.folder / f"{name}.token"
        file.touch(mode=0o600)
        file.write_text(f"{made['join_token']}\n")
