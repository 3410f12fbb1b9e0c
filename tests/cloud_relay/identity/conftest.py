"""A relay that has just been initialised, and does not run. What goes through the tunnel's port runs on both loops."""

from __future__ import annotations

import pytest

from tests.cloud_relay.identity.shell import INIT, Shell
from tests.support.loops import Factories, both_for


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    return both_for(item, {"test_enrolment.py", "test_sessions.py", "test_listener_security.py"})


@pytest.fixture
def shell(tmp_path, capsys):
    made = Shell(tmp_path / "relay.yaml", capsys)
    made.json(*INIT, "--state-dir", str(tmp_path / "state"))
    return made
