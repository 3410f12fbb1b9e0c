"""`cloud-relay` as it is typed, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.cli import app
from shared.cli import invoke


class Shell:
    """Runs `cloud-relay` in this process, on one config."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = invoke(app, [*arguments, "--config", str(self.config)])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def problem(self, exit_code: int, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert (code, out) == (exit_code, ""), err
        found: dict[str, Any] = json.loads(err)
        return found


INIT = ("init", "--advertise", "localhost:8443", "--tenant", "acme", "--location", "walldorf")
"""A first config and CA."""
