"""Qanat itself, with everything on: authentication, quotas, metrics, access lines to a file, mTLS in the tunnel."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.programs import ROOT, BenchmarkError, Process
from benchmarks.side import Side, free_port
from benchmarks.site import HOST, Site
from benchmarks.systems.base import BYSTANDER, FILES, Endpoint, Running, Shape, both_doors
from benchmarks.systems.qanat_config import (
    CONNECTOR,
    LOCATION,
    TENANT,
    TRUST_DOMAIN,
    connector_config,
    crowd_identities,
    crowd_tunnels,
    relay_config,
)

COMPILED = ROOT / "build" / "compiled"
"""Where `make compile` puts the compiled build."""

_READY_S = 20.0
_PORTS = ("tunnel", "tls", "plain", FILES, "relay", "connector")


class Qanat:
    """One relay, one connector with its two tunnels (or one to each worker).

    `packages` is the folder whose packages run: the tree itself, or the compiled build of it.
    """

    def __init__(self, name: str = "qanat", *, packages: Path = ROOT, workers: int = 1) -> None:
        self.name = name
        self._packages = packages
        self._workers = workers

    def missing(self) -> list[str]:
        commands = ("cloud-relay", "connector-agent")
        lacking = [name for name in commands if not _command(name).exists()]
        return lacking if self._packages == ROOT else lacking + why_not_compiled(self._packages)

    def start(self, site: Site, shape: Shape) -> Running:
        ports = {name: free_port() for name in _PORTS}
        crowd = crowd_identities(shape)
        _make_pki(site, [f"{TENANT}/{LOCATION}/{CONNECTOR}", *crowd])
        workers = shape.workers or self._workers
        relay_argv = [*_relay_command(site, shape), "serve", *(["--workers", str(workers)] if workers > 1 else [])]
        relay_argv += ["--config", _write(site, "relay", relay_config(site, ports, shape))]
        connector_argv = [str(_command("connector-agent")), "run"]
        connector_argv += ["--config", _write(site, "connector", connector_config(site, ports))]
        relay = self._start(site, site.cloud, "relay", relay_argv, ports["relay"])
        connector = self._start(site, site.premises, "connector", connector_argv, ports["connector"])
        doors = both_doors(site.targets, ports["tls"], ports["plain"])
        if shape.bystander:
            doors |= self._start_bystander(site, shape)
        if site.file_server is not None:
            doors[FILES, False] = Endpoint(ports[FILES], is_tls=False)
        details = {
            "pki": str(site.folder / "pki"),
            "config": str(site.folder / "connector.yaml"),
            "address": site.cloud.address,
            "tunnel_port": str(ports["tunnel"]),
            "observe_port": str(ports["relay"]),
            "pauses": str(_pauses(site)),
            "crowd": " ".join(crowd_tunnels(shape)),
        }
        running = Running(doors, [relay, connector], {"relay": relay, "connector": connector}, details)
        running.restart_relay = partial(self._restart_relay, site, running, relay_argv, ports["relay"])
        _wait_for_tunnels(running, site.cloud, max(2, workers))
        return running

    def _restart_relay(self, site: Site, running: Running, argv: list[str], port: int) -> None:
        """Kills the relay, and starts it again; returns when it is ready to serve."""
        old = running.roles["relay"]
        old.kill()
        site.end(old)
        relay = self._start(site, site.cloud, "relay-again", argv, port)
        running.counted[running.counted.index(old)] = running.roles["relay"] = relay

    def _start_bystander(self, site: Site, shape: Shape) -> dict[tuple[str, bool], Endpoint]:
        """A pair of its own to the same targets, in a folder of its own; its doors."""
        folder = site.folder / BYSTANDER
        folder.mkdir(mode=0o755)
        own = replace(site, folder=folder)
        running = self.start(own, replace(shape, bystander=False))
        return {(BYSTANDER, is_tls): running.endpoint("push", is_tls=is_tls) for is_tls in (False, True)}

    def _start(self, site: Site, side: Side, name: str, argv: list[str], port: int) -> Process:
        process = site.start(side, argv, name, {"PYTHONPATH": f"{self._packages}:{ROOT}"})
        _wait_until_ready(process, side, port)
        return process


def why_not_compiled(folder: Path) -> list[str]:
    """What is wrong with a compiled build: it is not there, or made of other sources than the tree's."""
    if not (folder / "stamp").exists():
        return ["the compiled build: run `make compile`"]
    for package in ("shared", "cloud_relay", "connector_agent"):
        for path in (ROOT / package).rglob("*.py"):
            copy = folder / path.relative_to(ROOT)
            if not copy.exists() or copy.read_bytes() != path.read_bytes():
                return [f"a compiled build of today's sources ({path.relative_to(ROOT)} is newer): run `make compile`"]
    return []


def metric(running: Running, side: Side, name: str) -> float:
    """The sum of all samples of one metric of the relay; 0.0 where there is none."""

    def read() -> str:
        port = running.details["observe_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    lines = (line.rpartition(" ") for line in side.call(read).splitlines())
    return sum(float(value) for key, _, value in lines if key.split("{", 1)[0] == name)


def _command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _relay_command(site: Site, shape: Shape) -> list[str]:
    if shape.gc_watch:
        return [sys.executable, "-m", "benchmarks.gc_watch", str(_pauses(site))]
    return [str(_command("cloud-relay"))]


def _pauses(site: Site) -> Path:
    return site.folder / "relay.pauses"


def _write(site: Site, name: str, config: dict[str, Any]) -> str:
    path = site.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def _make_pki(site: Site, connectors: list[str]) -> None:
    argv = [sys.executable, str(ROOT / "certs" / "generate.py"), "--out", str(site.folder / "pki"), "--days", "1"]
    argv += ["--trust-domain", TRUST_DOMAIN]
    for connector in connectors:
        argv += ["--connector", connector]
    for host in dict.fromkeys((HOST, "127.0.0.1", site.cloud.address)):
        argv += ["--host", host]
    result = subprocess.run(
        argv, capture_output=True, text=True, timeout=120, check=False, env={"PYTHONPATH": str(ROOT)}
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


def _wait_for_tunnels(running: Running, side: Side, count: int) -> None:
    """Waits until so many tunnels are attached: the second one comes after the first.

    Raises:
        BenchmarkError: it took too long.
    """
    deadline = time.monotonic() + _READY_S
    while metric(running, side, "qanat_relay_tunnels") < count:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the connector does not open its {count} tunnels")
        time.sleep(0.1)
