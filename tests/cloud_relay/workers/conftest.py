"""What goes over a real socket runs on both event loops."""

from __future__ import annotations

import pytest

from tests.support.loops import Factories, both_for


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    return both_for(item, {"test_siblings.py"})
