"""The command `connector-agent`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from connector_agent.cli_check import add_check_command, checks_for_diag
from connector_agent.identity.cli import add_identity_commands
from connector_agent.loading import load, read_every_file, warnings_of
from shared.cli import ConfigOption, is_journal, make_app
from shared.cli import run as run_cli
from shared.cli_diag import Diagnosed, add_diag_command
from shared.commands import Program, add_common_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

    from connector_agent.config import ConnectorConfig

DEFAULT_CONFIG: Final = Path("/etc/qanat/connector.yaml")

app = make_app(
    "connector-agent", "The connector: dials out to relays and hands their pushes to targets in here.", is_root=True
)


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

    loaded = load(config)
    materials = read_every_file(loaded.config)
    setup_logging(loaded.config.log.format, loaded.config.log.level, is_journal=is_journal())
    manager = ServiceManager.from_environment(os.environ)
    for warning in warnings_of(loaded.config):
        get_logger("connector").warning("doubtful config", **warning)
    run_program(lambda: ConnectorApp(config, loaded, make_tunnels, materials, manager), manager)


def _model() -> type[ConnectorConfig]:
    from connector_agent.config import ConnectorConfig

    return ConnectorConfig


def _tables() -> Callable[[dict[str, Any]], RenderableType]:
    from connector_agent.show import status_tables

    return status_tables


add_check_command(app, DEFAULT_CONFIG)
add_diag_command(app, Diagnosed("connector-agent", "connector", DEFAULT_CONFIG, load, checks_for_diag))
add_identity_commands(app, DEFAULT_CONFIG)
add_common_commands(app, Program("connector-agent", "connector", DEFAULT_CONFIG, _model, _tables))
