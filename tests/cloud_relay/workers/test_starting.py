"""Processes of workers: none outlives whoever waits for it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from cloud_relay.workers.place import Worker
from cloud_relay.workers.starting import Starter
from shared.config.edition import Edition
from shared.tasks import spawn
from tests.support.ends import until


async def test_one_that_began_while_all_others_were_ended_is_ended_too(tmp_path: Path) -> None:
    starter = Starter([sys.executable, "-c", "import time; time.sleep(60)"], {}, 1, tmp_path)
    worker = Worker(0)
    running = spawn(starter.run(worker, Edition(), (), lambda *_: None), "a worker")
    await until(lambda: worker.is_running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not worker.is_running
    worker.ends()
