"""From a path to the relay's config: what `serve`, `check` and `diag` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from shared.config import Edition, Loaded


def load(path: Path, edition: Edition | None = None) -> Loaded[RelayConfig]:
    """The config, of its files or of what another process has read. ConfigError lists all that is wrong with it."""
    from cloud_relay.config import RelayConfig
    from shared.cli import read_own_config

    return read_own_config(path, RelayConfig, edition)


def warnings_of(config: RelayConfig) -> list[dict[str, str]]:
    """What works, but is probably not meant."""
    from cloud_relay.config import find_warnings
    from shared.config.problems import dotted

    return [{"key": dotted(flaw.key), "message": flaw.message} for flaw in find_warnings(config)]


def check_state(state_dir: Path, before: Path) -> None:
    """CommandError if a config is about another state than the relay that runs."""
    from shared.exits import CommandError, ExitCode

    if state_dir.absolute() != before.absolute():
        raise CommandError(
            ExitCode.CONFIG, f"state_dir is {state_dir} now, and was {before}",
            "The state cannot move while the relay runs: stop it, move it, and start it.", "state-dir-changed",
        )  # fmt: skip
