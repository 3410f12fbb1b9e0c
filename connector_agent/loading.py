"""From a path to a config that the connector would start with: what `run`, `check` and `diag` share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shared.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from connector_agent.build import Materials
    from connector_agent.config import ConnectorConfig
    from shared.config import Loaded


def load(path: Path) -> Loaded[ConnectorConfig]:
    """The config. ConfigError lists all that is wrong with it."""
    from connector_agent.config import ConnectorConfig
    from shared.cli import read_own_config

    return read_own_config(path, ConnectorConfig)


def read_every_file(config: ConnectorConfig) -> dict[str, Materials]:
    """Read every file that the config names, those of the tunnels and of the proxy included. CommandError."""
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


def warnings_of(config: ConnectorConfig) -> list[dict[str, str]]:
    """What works, but is probably not meant."""
    from connector_agent.config_checks import find_warnings
    from shared.config.problems import dotted

    return [{"key": dotted(flaw.key), "message": flaw.message} for flaw in find_warnings(config)]
