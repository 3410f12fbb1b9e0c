"""What a reload came to, and how the log tells it. Names of keys are told, never values."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol


class Outcome(NamedTuple):
    """The end of a reload: taken with these changes, or refused for these problems. `at` is Unix time.

    `is_invalid`: refused since the config is not good, or a file that it names; else since the process cannot have it,
    which a new process can if it `needs_a_restart`.
    """

    is_taken: bool
    lines: tuple[str, ...]
    at: float
    is_invalid: bool = False
    needs_a_restart: bool = False

    @classmethod
    def taken(cls, changes: Iterable[object]) -> Outcome:
        """The new config is in force."""
        return cls(is_taken=True, lines=tuple(map(str, changes)), at=time.time())

    @classmethod
    def invalid(cls, problems: Iterable[object]) -> Outcome:
        """The config is not good. The old one stays in force."""
        return cls.refused(problems)._replace(is_invalid=True)

    @classmethod
    def refused(cls, problems: Iterable[object]) -> Outcome:
        """This process cannot have it now. The old config stays in force."""
        return cls(is_taken=False, lines=tuple(map(str, problems)), at=time.time())

    @classmethod
    def needs_restart(cls, keys: Iterable[str]) -> Outcome:
        """Refused for keys that cannot change while the program runs."""
        return cls.refused(f"{key} changes only with a restart" for key in keys)._replace(needs_a_restart=True)


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
