"""One process of the relay, from its config to its end: started as ever, by socket activation, or to take over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud_relay.app import RelayApp
from cloud_relay.handover.arriving import Arriving
from cloud_relay.handover.passing import Passed
from cloud_relay.handover.predecessor import greet, tell_failure
from cloud_relay.loading import check_state, load, warnings_of
from cloud_relay.workers.passing import Assignment
from cloud_relay.workers.supervisor import Supervisor
from shared.cli import is_journal
from shared.launch import Launcher, own_command
from shared.listeners import Inherited
from shared.logs import get_logger, setup_logging
from shared.process import run_program
from shared.service_manager import ServiceManager


def serve_config(path: Path, passed: Passed | None, workers: int = 1) -> Launcher:
    """Run the relay with this config until it ends; what it may have started then, to take its place.

    With several `workers` this process is their supervisor, or one of them.

    ConfigError, CommandError: it cannot; a process that wanted to hand over to this one has been told.
    """
    command = own_command()
    with _telling(passed):
        assignment = Assignment.from_environment(os.environ)
        activated = Inherited.from_service_manager(os.environ)
        loaded = load(path)
        log, always = loaded.config.log, {"worker": assignment.number} if assignment is not None else {}
        setup_logging(log.format, log.level, is_journal=is_journal(), always=always)
        manager = ServiceManager.from_environment(os.environ)
        told = manager.for_successor()
        launcher = Launcher(command, os.environ | told, is_detached=bool(told))
        for warning in warnings_of(loaded.config):
            get_logger("relay").warning("doubtful config", **warning)
        if assignment is not None:
            check_state(loaded.config.state_dir, assignment.state_dir)
            run_program(lambda: RelayApp(path, loaded, assignment=assignment))
        elif workers > 1:
            run_program(
                lambda: Supervisor(
                    loaded.config, workers, command, os.environ, activated, lambda: load(path).config, manager
                ),
                manager,
            )
        else:
            run_program(lambda: RelayApp(path, loaded, manager, Arriving(passed, activated), launcher), manager)
    return launcher


@contextmanager
def _telling(passed: Passed | None) -> Iterator[None]:
    if passed is not None:
        greet(passed.channel)
    try:
        yield
    except Exception as error:
        if passed is not None:
            tell_failure(passed.channel, error)
        raise
    finally:
        if passed is not None:
            passed.channel.close()
