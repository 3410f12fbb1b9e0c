"""How a reload's end is told."""

from __future__ import annotations

from pathlib import Path

from shared.outcome import Outcome, describe_outcome


class Recorder:
    """A logger that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **values: object) -> None:
        self.told.append(("info", event, values))

    def error(self, event: str, **values: object) -> None:
        self.told.append(("error", event, values))


def test_the_log_says_what_came_of_it() -> None:
    log = Recorder()
    for outcome in (
        Outcome.taken(["route acme/frun added"]),
        Outcome.taken([]),
        Outcome.refused(["relay.yaml:1: colour: this key is not known"]),
        Outcome.needs_restart(["observe"]),
    ):
        describe_outcome(log, outcome, Path("relay.yaml"))
    not_taken = "config not taken; the old one stays in force"
    assert log.told == [
        ("info", "config reloaded", {"path": "relay.yaml", "changes": ["route acme/frun added"]}),
        ("info", "config and certificates read again; nothing changed in the config", {"path": "relay.yaml"}),
        ("error", not_taken, {"path": "relay.yaml", "problems": ["relay.yaml:1: colour: this key is not known"]}),
        ("error", not_taken, {"path": "relay.yaml", "problems": ["observe changes only with a restart"]}),
    ]
