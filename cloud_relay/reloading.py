"""What a reload came to, and what it watches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, Protocol

from cloud_relay.config import RelayConfig, find_changes
from shared.config import Loaded


class Outcome(NamedTuple):
    """The end of a reload: taken with these changes, or refused for these problems. `at` is Unix time."""

    is_taken: bool
    lines: tuple[str, ...]
    at: float

    @classmethod
    def taken(cls, old: RelayConfig, new: RelayConfig) -> Outcome:
        """The new config is in force."""
        return cls(True, tuple(map(str, find_changes(old, new))), time.time())  # noqa: FBT003 - it is a field

    @classmethod
    def refused(cls, problems: list[str]) -> Outcome:
        """The old config stays in force."""
        return cls(False, tuple(problems), time.time())  # noqa: FBT003 - likewise


class Logger(Protocol):
    """What is used of structlog's."""

    def info(self, event: str, **values: object) -> object: ...
    def error(self, event: str, **values: object) -> object: ...


def describe_outcome(log: Logger, outcome: Outcome, path: Path) -> None:
    """Say in the log what changed, or why nothing did."""
    if outcome.is_taken and outcome.lines:
        log.info("config reloaded", path=str(path), changes=list(outcome.lines))
        return
    if outcome.is_taken:
        log.info("config and certificates read again; nothing changed in the config", path=str(path))
        return
    log.error("config not taken; the old one stays in force", path=str(path), problems=list(outcome.lines))


def watched_files(loaded: Loaded[RelayConfig]) -> list[Path]:
    """The config's files, what they name, and the folders of included files, in which more may appear."""
    main = loaded.sources[0]
    folders = {source.parent for source in loaded.sources[1:]} - {main.parent}
    named = [path for path in loaded.files if path != loaded.config.state_dir]
    return [*loaded.sources, *named, *sorted(folders)]
