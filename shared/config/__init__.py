"""Configuration: YAML files in, one validated and frozen model out, and problems that name file, line and key.

    class RelayConfig(ConfigModel):
        state_dir: ConfigPath
        \"\"\"Where the relay keeps its state; made if it is missing.\"\"\"

    config = load_config(Path("relay.yaml"), RelayConfig)      # or ConfigError

Files of `include: [conf.d/*.yaml]` are merged into the main one; relative paths are relative to the file they stand in;
`$CREDENTIALS_DIRECTORY/NAME` is a secret that systemd, or whoever else sets that variable, has handed over.
"""

from shared.config.edition import Edition
from shared.config.load import Loaded, json_schema, load_config, read_config
from shared.config.model import (
    PRIVATE,
    ConfigFile,
    ConfigModel,
    ConfigPath,
    Flaw,
    HostPort,
    HostPortField,
    Listen,
    ListenField,
)
from shared.config.problems import ConfigError, Problem

__all__ = [
    "PRIVATE",
    "ConfigError",
    "ConfigFile",
    "ConfigModel",
    "ConfigPath",
    "Edition",
    "Flaw",
    "HostPort",
    "HostPortField",
    "Listen",
    "ListenField",
    "Loaded",
    "Problem",
    "json_schema",
    "load_config",
    "read_config",
]
