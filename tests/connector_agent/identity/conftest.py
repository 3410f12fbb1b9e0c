"""Joining, renewing and reloading go over real sockets: on asyncio's loop and on uvloop's."""

from __future__ import annotations

import pytest

from tests.support.loops import Factories, both_for


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    return both_for(item, {"test_join.py", "test_managed.py", "test_enroll.py"})
