"""What a reload may change, what it came to, and what it watches. Names of keys are told, never values."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from connector_agent.config import ConnectorConfig
from connector_agent.targets import Changes
from shared.config import Loaded

RESTART_KEYS: Final = ("relays", "state_dir", "tls", "tunnels", "proxy", "observe", "log", "memory")
"""What is used once, at the start."""


class Outcome(NamedTuple):
    """The end of a reload: taken with these changes, or refused for these problems. `at` is Unix time."""

    is_taken: bool
    lines: tuple[str, ...]
    at: float

    @classmethod
    def taken(cls, lines: list[str]) -> Outcome:
        """The new config is in force."""
        return cls(True, tuple(lines), time.time())  # noqa: FBT003 - it is a field

    @classmethod
    def refused(cls, problems: list[str]) -> Outcome:
        """The old config stays in force."""
        return cls(False, tuple(problems), time.time())  # noqa: FBT003 - likewise


class Logger(Protocol):
    """What is used of structlog's."""

    def info(self, event: str, **values: object) -> object: ...
    def error(self, event: str, **values: object) -> object: ...


def restart_keys(old: ConnectorConfig, new: ConnectorConfig) -> list[str]:
    """The keys that differ and cannot change while the connector runs."""
    return [key for key in RESTART_KEYS if getattr(old, key) != getattr(new, key)]


def describe_changes(old: ConnectorConfig, new: ConnectorConfig, changes: Changes) -> list[str]:
    """One line for each thing that a reload changed. `changes` are those of the table of targets."""
    lines = ["drain changed"] if old.drain != new.drain else []
    lines += [f"target {name} added" for name in changes.added]
    lines += [f"target {name} removed" for name in changes.removed]
    before = {target.name: target for target in old.targets}
    after = {target.name: target for target in new.targets}
    for name in changes.changed:
        one, other = before[name], after[name]
        keys = [key for key in type(one).model_fields if getattr(one, key) != getattr(other, key)]
        lines.append(f"target {name} changed: {', '.join(keys) or 'its certificate files'}")
    lines += [f"target {name} changed: the header values of its files" for name in changes.secrets]
    return lines


def describe_outcome(log: Logger, outcome: Outcome, path: Path) -> None:
    """Say in the log what changed, or why nothing did."""
    if outcome.is_taken:
        log.info("config reloaded", path=str(path), changes=list(outcome.lines))
        return
    log.error("config not taken; the old one stays in force", path=str(path), problems=list(outcome.lines))


def watched_files(loaded: Loaded[ConnectorConfig]) -> list[Path]:
    """The config's files, what they name, and the folders of included files, in which more may appear."""
    main = loaded.sources[0]
    folders = {source.parent for source in loaded.sources[1:]} - {main.parent}
    named = [path for path in loaded.files if path != loaded.config.state_dir]
    return [*loaded.sources, *named, *sorted(folders)]
