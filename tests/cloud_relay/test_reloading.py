"""What a reload watches, and how its end is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cloud_relay.config import RelayConfig
from cloud_relay.reloading import Outcome, describe_outcome, watched_files
from shared.config import read_config

Document = dict[str, Any]


class Recorder:
    """A logger that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **values: object) -> None:
        self.told.append(("info", event, values))

    def error(self, event: str, **values: object) -> None:
        self.told.append(("error", event, values))


def test_watched_are_sources_certificates_and_folders_of_includes(
    relay_document: Document, write_config: Callable[[Document], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    tenants = relay_document.pop("tenants")
    (folder / "acme.yaml").write_text(yaml.safe_dump({"tenants": tenants}))
    loaded = read_config(write_config({**relay_document, "include": ["conf.d/*.yaml"]}), RelayConfig)
    names = [path.relative_to(tmp_path).as_posix() for path in watched_files(loaded)]
    assert names == ["relay.yaml", "conf.d/acme.yaml", "relay.pem", "relay.key", "ca.pem", "conf.d"]


def test_the_log_says_what_came_of_it() -> None:
    log = Recorder()
    for outcome in (
        Outcome(is_taken=True, lines=("route acme/frun added",), at=1.0),
        Outcome(is_taken=True, lines=(), at=1.0),
        Outcome.refused(["relay.yaml:1: colour: this key is not known"]),
    ):
        describe_outcome(log, outcome, Path("relay.yaml"))
    assert log.told == [
        ("info", "config reloaded", {"path": "relay.yaml", "changes": ["route acme/frun added"]}),
        ("info", "config and certificates read again; nothing changed in the config", {"path": "relay.yaml"}),
        (
            "error",
            "config not taken; the old one stays in force",
            {"path": "relay.yaml", "problems": ["relay.yaml:1: colour: this key is not known"]},
        ),
    ]
