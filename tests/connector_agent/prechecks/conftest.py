from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.connector_agent.prechecks.kit import Bench
from tests.support.tunnels import world


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A relay that serves, and a connector's config that is good for it."""
    async with world(tmp_path) as made:
        await made.serve()
        ready = Bench(made, tmp_path)
        ready.identify(made.pki.connector())
        ready.dial(made.port)
        yield ready
