"""The command `connector-agent`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, emit, make_app
from shared.cli import run as run_cli

if TYPE_CHECKING:
    from connector_agent.build import Materials
    from connector_agent.config import ConnectorConfig
    from shared.config import Loaded

DEFAULT_CONFIG: Final = Path("/etc/qanat/connector.yaml")

app = make_app("connector-agent", "The connector: dials out to relays and hands their pushes to targets in here.")


def main() -> NoReturn:
    """Run the command line and exit."""
    run_cli(app)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the connector until SIGTERM. SIGHUP, or a change of its files, reloads the config."""
    from connector_agent.app import ConnectorApp
    from connector_agent.tunnels import make_tunnels
    from shared.logs import get_logger, setup_logging
    from shared.process import run_program

    loaded = _load(config)
    materials = _read_materials(loaded.config)
    setup_logging(loaded.config.log.format, loaded.config.log.level)
    for warning in _warnings(loaded.config):
        get_logger("connector").warning("doubtful config", **warning)
    run_program(lambda: ConnectorApp(config, loaded, make_tunnels, materials))


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Look whether the connector would start with this config, and what in it is doubtful. Starts nothing."""
    loaded = _load(config)
    _read_materials(loaded.config)
    warnings = _warnings(loaded.config)
    targets = [target.name for target in loaded.config.targets]
    lines = [f"{config} is good: {len(targets)} targets"]
    lines += [f"warning: {warning['key']}: {warning['message']}" for warning in warnings]
    data = {"config": str(config), "targets": targets, "warnings": warnings}
    emit(data, schema="qanat.connector.check.v1", json=as_json, table="\n".join(lines))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config file, for editors."""
    from connector_agent.config import ConnectorConfig
    from shared.config import json_schema

    shown = json_schema(ConnectorConfig)
    emit(shown, schema=shown["$schema"], json=True, table="")


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show the running connector: its tunnels, and how the targets are."""
    from connector_agent.show import status_tables

    answer = _ask(config, "GET", "/v1/status")
    emit(answer, schema="qanat.connector.status.v1", json=as_json, table=lambda: status_tables(answer))


@app.command()
def reload(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Let the running connector read its config again, and say what changed."""
    answer = _ask(config, "POST", "/v1/reload")
    lines = answer["changes"] or ["nothing changed"]
    emit(answer, schema="qanat.connector.reload.v1", json=as_json, table="\n".join(lines))


@app.command()
def drain(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Let the running connector finish the pushes in flight and end, as SIGTERM does."""
    answer = _ask(config, "POST", "/v1/drain")
    text = f"draining, {answer['in_flight']} pushes in flight"
    emit(answer, schema="qanat.connector.drain.v1", json=as_json, table=text)


@app.command()
def explain(code: str, as_json: JsonOption = False) -> None:
    """Say what an error code means, and what to do."""
    from connector_agent.show import explain_fault

    data, text = explain_fault(code)
    emit(data, schema="qanat.fault.v1", json=as_json, table=text)


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    from connector_agent.status import version as installed

    emit({"version": installed()}, schema="qanat.version.v1", json=as_json, table=f"connector-agent {installed()}")


def _load(path: Path) -> Loaded[ConnectorConfig]:
    from connector_agent.config import ConnectorConfig
    from shared.config import read_config

    return read_config(path, ConnectorConfig)


def _read_materials(config: ConnectorConfig) -> dict[str, Materials]:
    """Read every file that the config names, those of the tunnels and of the proxy included."""
    from connector_agent.build import read_materials
    from connector_agent.proxy import ProxyError
    from connector_agent.tunnels import choose_proxies
    from shared.pki.files import PkiError
    from shared.pki.tls import tunnel_client_context

    try:
        tunnel_client_context(config.tls.ca, config.tls.certificate, config.tls.key)
        choose_proxies(config, os.environ)
        return read_materials(config)
    except (PkiError, ProxyError) as error:
        raise CommandError(ExitCode.CONFIG, str(error)) from error


def _warnings(config: ConnectorConfig) -> list[dict[str, str]]:
    from connector_agent.config_checks import find_warnings
    from shared.config.problems import dotted

    return [{"key": dotted(flaw.key), "message": flaw.message} for flaw in find_warnings(config)]


def _ask(config: Path, method: str, url: str) -> dict[str, Any]:
    """One request to the running connector, found by the config's state_dir, however broken the rest is."""
    from shared.config.tree import Text, read_tree
    from shared.control import control_request

    entry = (read_tree(config.absolute()).entries or {}).get("state_dir")
    value = entry.tree.value if entry is not None else None
    if not isinstance(value, Text):
        raise CommandError(ExitCode.CONFIG, f"{config} names no state_dir, where the connector's control socket is")
    socket = value.source.parent / value / "control.sock"
    return asyncio.run(control_request(socket, method, url))
