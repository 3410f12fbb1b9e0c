"""Prechecks of a config against a real listener of a relay, on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cloud_relay.tunnels import TunnelListener
from connector_agent.config import ConnectorConfig
from connector_agent.prechecks import Asked, run_prechecks
from shared.config import load_config
from shared.pki.tls import KeyPair
from shared.prechecks import Precheck, Result
from tests.support.tunnels import World


class Bench:
    """A world with a relay, and a config to be changed before `check`."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.environ: dict[str, str] = {}
        self.config: dict[str, Any] = {"relays": [], "state_dir": "state", "targets": []}

    @property
    def listener(self) -> TunnelListener:
        assert self.world.listener is not None
        return self.world.listener

    def identify(self, pair: KeyPair, ca: Path | None = None) -> None:
        """With a CA of one's own."""
        self.config["tls"] = {
            "certificate": str(pair.certificate), "key": str(pair.key), "ca": str(ca or self.world.pki.ca)
        }  # fmt: skip

    def dial(self, port: int, host: str = "localhost") -> None:
        self.config["relays"] = [f"wss://{host}:{port}"]

    def expose(self, url: str, name: str = "frun", **more: Any) -> dict[str, Any]:
        target = {"name": name, "url": url, "allow": [{"methods": ["POST"], "path": "/sap/frun", "sub_paths": True}]}
        target |= more
        self.config["targets"].append(target)
        return target

    def load(self) -> ConnectorConfig:
        path = self.folder / "connector.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return load_config(path, ConnectorConfig)

    async def check(self, asked: Asked | None = None) -> Rows:
        return Rows(await run_prechecks(self.load(), self.environ, [], asked))


class Rows(list[Precheck]):
    """The lines, to be asked for."""

    def get(self, subject: str, check: str) -> Precheck:
        """The one line about this, the subject by how it begins."""
        found = [row for row in self if row.subject.startswith(subject) and row.check == check]
        assert len(found) == 1, f"{subject} {check}: {self}"
        return found[0]

    def results(self, subject: str) -> dict[str, str]:
        """check → result."""
        return {row.check: row.result.value for row in self if row.subject.startswith(subject)}

    @property
    def failures(self) -> list[Precheck]:
        failed = [row for row in self if row.result is Result.FAILED]
        assert all(row.remedy and row.detail for row in failed), failed  # whoever reads it knows what to do
        return failed

    @property
    def only_failure(self) -> Precheck:
        (row,) = self.failures
        return row
