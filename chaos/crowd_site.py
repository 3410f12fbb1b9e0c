"""A site whose relay has a thousand connectors more, all of one tenant of their own, and whose CA is an operator's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.programs import ROOT
from chaos.configs import CONNECTORS, LOCATION, TRUST_DOMAIN, full_name
from chaos.journal import Reader
from chaos.site import RELAY, Site

CROWD: Final = 1000
_TENANT: Final = "crowd"
_PATIENCE: Final = 60.0


class CrowdSite(Site):
    """As a Site; `crowd_is_back` waits for all of the crowd."""

    async def start(self) -> None:
        await asyncio.to_thread(_make_pki, self._pki, [self.network.relay_name(name) for name in CONNECTORS])
        self._crowd = Reader(self.folder / "crowd.journal")
        await super().start()
        name = self.network.relay_name("c1")
        identities = [f"connector.{_TENANT}.{LOCATION}.k{number}" for number in range(CROWD)]
        argv = ("-m", "chaos.crowd", str(self.folder / "crowd.journal"), str(self._pki), name)
        self.run(
            "crowd", self.network.premises, *self.network.resolver, sys.executable, *argv,
            str(self.keys.ports["tunnel"]), *identities,
        )  # fmt: skip
        await self.crowd_is_back()

    async def crowd_is_back(self) -> float:
        """Until all of the crowd are attached; when that was.

        Raises:
            AssertionError: some do not come.
        """
        attached, deadline = 0, time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for record in self._crowd.read():
                attached = int(record["attached"])
                if attached == CROWD:
                    return float(record["at"])
            await asyncio.sleep(0.05)
        raise AssertionError(f"only {attached} of {CROWD} connectors are attached after {_PATIENCE:.0f} s")

    # --- identities of a CA of one's own

    @property
    def _pki(self) -> Path:
        return self.folder / "pki"

    async def _found(self) -> None:
        """There is a CA already."""

    async def _invite(self, name: str) -> None:
        """Its certificate is there already."""

    def _write(self, name: str, config: dict[str, Any]) -> None:
        pki = self._pki
        if name == RELAY:
            del config["identity"]
            config["tunnel"]["tls"] = {
                "certificate": str(pki / "relay.pem"), "key": str(pki / "relay.key"), "client_ca": str(pki / "ca.pem"),
            }  # fmt: skip
            config["tenants"][_TENANT] = {"locations": [LOCATION]}
        else:
            leaf = pki / f"connector.{full_name(name).replace('/', '.')}"
            del config["join"]
            config["tls"] = {"certificate": f"{leaf}.pem", "key": f"{leaf}.key", "ca": str(pki / "ca.pem")}
        super()._write(name, config)


def _make_pki(folder: Path, hosts: list[str]) -> None:
    argv = [sys.executable, str(ROOT / "certs" / "generate.py"), "--out", str(folder), "--days", "1"]
    argv += ["--trust-domain", TRUST_DOMAIN]
    for host in dict.fromkeys(hosts):
        argv += ["--host", host]
    crowd = (f"{_TENANT}/{LOCATION}/k{number}" for number in range(CROWD))
    for connector in (*map(full_name, CONNECTORS), *crowd):
        argv += ["--connector", connector]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
