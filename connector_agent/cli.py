"""The command `connector-agent`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from connector_agent.identity.cli import add_identity_commands
from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, counted, emit, make_app
from shared.cli import run as run_cli
from shared.commands import Program, add_common_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

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
    from connector_agent.wiring import make_tunnels
    from shared.logs import get_logger, setup_logging
    from shared.process import run_program
    from shared.service_manager import ServiceManager

    loaded = _load(config)
    materials = _read_materials(loaded.config)
    setup_logging(loaded.config.log.format, loaded.config.log.level)
    manager = ServiceManager.from_environment(os.environ)
    for warning in _warnings(loaded.config):
        get_logger("connector").warning("doubtful config", **warning)
    run_program(lambda: ConnectorApp(config, loaded, make_tunnels, materials, manager), manager)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Look whether the connector would start with this config, and what in it is doubtful. Starts nothing."""
    loaded = _load(config)
    _read_materials(loaded.config)
    warnings = _warnings(loaded.config)
    targets = [target.name for target in loaded.config.targets]
    lines = [f"{config} is good: {counted(len(targets), 'target')}"]
    lines += [f"warning: {warning['key']}: {warning['message']}" for warning in warnings]
    data = {"config": str(config), "targets": targets, "warnings": warnings}
    emit(data, schema="qanat.connector.check.v1", json=as_json, table="\n".join(lines))


def _model() -> type[ConnectorConfig]:
    from connector_agent.config import ConnectorConfig

    return ConnectorConfig


def _tables() -> Callable[[dict[str, Any]], RenderableType]:
    from connector_agent.show import status_tables

    return status_tables


add_identity_commands(app, DEFAULT_CONFIG)
add_common_commands(app, Program("connector-agent", "connector", DEFAULT_CONFIG, _model, _tables))


def _load(path: Path) -> Loaded[ConnectorConfig]:
    from connector_agent.config import ConnectorConfig
    from shared.cli import read_own_config

    return read_own_config(path, ConnectorConfig)


def _read_materials(config: ConnectorConfig) -> dict[str, Materials]:
    """Read every file that the config names, those of the tunnels and of the proxy included."""
    from connector_agent.build import read_materials
    from connector_agent.proxy import ProxyError
    from connector_agent.wiring import check_identity, choose_proxies
    from shared.pki.files import PkiError

    try:
        check_identity(config)
        choose_proxies(config, os.environ)
        return read_materials(config)
    except (PkiError, ProxyError) as error:
        raise CommandError(ExitCode.CONFIG, str(error)) from error


def _warnings(config: ConnectorConfig) -> list[dict[str, str]]:
    from connector_agent.config_checks import find_warnings
    from shared.config.problems import dotted

    return [{"key": dotted(flaw.key), "message": flaw.message} for flaw in find_warnings(config)]
