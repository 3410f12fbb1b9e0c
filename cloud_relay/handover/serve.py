"""One process of the relay, from its config to its end: started as ever, by socket activation, or to take over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_relay.app import RelayApp
from cloud_relay.handover.arriving import Arriving, rehearse_serving
from cloud_relay.handover.passing import Passed
from cloud_relay.handover.predecessor import greet, tell_failure
from cloud_relay.loading import check_state, load, warnings_of
from cloud_relay.workers.passing import Assignment
from cloud_relay.workers.supervisor import Supervisor
from shared.channel import Channel
from shared.cli import is_journal
from shared.config import Loaded
from shared.launch import Launcher, own_command
from shared.listeners import Inherited
from shared.logs import get_logger, setup_logging
from shared.process import run_program
from shared.service_manager import ServiceManager

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig


def serve_config(path: Path, passed: Passed | None, workers: int = 1) -> Launcher:
    """Run the relay with this config until it ends; what it may have started then, to take its place.

    With several `workers` this process is their supervisor, or one of them.

    ConfigError, CommandError: it cannot; a process that wanted to hand over to this one has been told.
    """
    command = own_command()
    assignment = Assignment.from_environment(os.environ)
    told = passed or assignment
    with _telling(told.channel if told is not None else None):
        activated = Inherited.from_service_manager(os.environ)
        loaded = load(path, assignment.edition if assignment is not None else None)
        log, always = loaded.config.log, {"worker": assignment.number} if assignment is not None else {}
        setup_logging(log.format, log.level, is_journal=is_journal(), always=always)
        manager = ServiceManager.from_environment(os.environ)
        inherits = manager.for_successor()
        launcher = Launcher(command, os.environ | inherits, is_detached=bool(inherits))
        for warning in warnings_of(loaded.config):
            get_logger("relay").warning("doubtful config", **warning)
        if assignment is not None:
            check_state(loaded.config.state_dir, assignment.state_dir)
        if assignment is not None and assignment.is_rehearsal:
            asyncio.run(_rehearse(path, loaded))
        elif assignment is not None:
            run_program(lambda: RelayApp(path, loaded, assignment=assignment), is_supervised=True)
        elif workers > 1:
            run_program(lambda: Supervisor(path, loaded, workers, command, os.environ, activated, manager), manager)
        else:
            run_program(lambda: RelayApp(path, loaded, manager, Arriving(passed, activated), launcher), manager)
    return launcher


async def _rehearse(path: Path, loaded: Loaded[RelayConfig]) -> None:
    """All of a start that can be done beside a relay that serves. CommandError, PkiError."""
    app = RelayApp(path, loaded)
    try:
        await asyncio.to_thread(rehearse_serving, app)
    finally:
        await app.stop()


@contextmanager
def _telling(channel: Channel | None) -> Iterator[None]:
    """Say who this process is, and why it ends, to the one that has started it."""
    if channel is not None:
        greet(channel)
    try:
        yield
    except Exception as error:
        if channel is not None:
            tell_failure(channel, error)
        raise
    finally:
        if channel is not None:
            channel.close()
