"""A relay that has just been initialised, and does not run."""

from __future__ import annotations

import pytest

from tests.cloud_relay.identity.shell import INIT, Shell


@pytest.fixture
def shell(tmp_path, capsys):
    made = Shell(tmp_path / "relay.yaml", capsys)
    made.json(*INIT, "--state-dir", str(tmp_path / "state"))
    return made
