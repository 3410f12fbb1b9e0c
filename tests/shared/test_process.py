"""Signals and the life of a program, in this very process."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.process import StopRequest, raise_file_limit, run_program
from shared.service_manager import ServiceManager
from tests.support.manager import Manager


class Script:
    """A program that sends itself `signals` once it runs, and keeps a log of what it was asked."""

    def __init__(self, *signals: int, drains_for: float = 0.0) -> None:
        self.log: list[str] = []
        self._signals = signals
        self._drains_for = drains_for

    async def start(self, stop_request: StopRequest) -> None:
        self.log.append("start")
        for number in self._signals:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.01)

    async def drain(self) -> None:
        self.log.append("drain")
        try:
            await asyncio.sleep(self._drains_for)
        except asyncio.CancelledError:
            self.log.append("drain cancelled")
            raise
        self.log.append("drained")

    async def stop(self) -> None:
        self.log.append("stop")

    def request_reload(self) -> None:
        self.log.append("reload")

    def describe(self) -> str:
        return self.log[-1]

    @property
    def patience(self) -> float:
        return 7.5


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leaves limits and the garbage collector as they were."""
    thresholds, files = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with Manager(tmp_path) as systemd:
        run_program(lambda: Script(signal.SIGTERM), ServiceManager.from_environment(systemd.environment()))
        ready, stopping = systemd.hear()
    assert ready == ["READY=1", "STATUS=start"]
    assert stopping[:2] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=7500000"]


def test_the_service_manager_hears_nothing_of_a_start_that_failed(tmp_path: Path) -> None:
    class Broken(Script):
        async def start(self, stop_request: StopRequest) -> None:
            raise OSError("no")

    with Manager(tmp_path) as systemd:
        with pytest.raises(OSError, match="no"):
            run_program(Broken, ServiceManager.from_environment(systemd.environment()))
        assert systemd.hear() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: int) -> None:
    program = Script(number)
    run_program(lambda: program)
    assert program.log == ["start", "drain", "drained", "stop"]


def test_the_second_signal_ends_at_once() -> None:
    program = Script(signal.SIGTERM, signal.SIGTERM, drains_for=60)
    run_program(lambda: program)
    assert program.log == ["start", "drain", "drain cancelled", "stop"]


def test_one_that_ends_with_another_drains_when_a_signal_comes_too() -> None:
    class Following(Script):
        async def start(self, stop_request: StopRequest) -> None:
            stop_request.is_wanted.set()
            await super().start(stop_request)

    program = Following(signal.SIGTERM, drains_for=0.05)
    run_program(lambda: program)
    assert program.log == ["start", "drain", "drained", "stop"]


def test_a_supervised_one_drains_however_many_tell_it_to_end() -> None:
    program = Script(signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, drains_for=0.05)
    run_program(lambda: program, is_supervised=True)
    assert program.log == ["start", "drain", "drained", "stop"]


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)])
def test_a_supervised_one_ends_at_once_when_told_so(signals: tuple[int, ...]) -> None:
    program = Script(*signals, drains_for=60)
    run_program(lambda: program, is_supervised=True)
    assert program.log[-2:] == ["drain cancelled", "stop"]


def test_hangup_reloads() -> None:
    program = Script(signal.SIGHUP, signal.SIGTERM)
    run_program(lambda: program)
    assert program.log == ["start", "reload", "drain", "drained", "stop"]


def test_the_program_may_ask_for_its_own_end() -> None:
    class Tired(Script):
        async def start(self, stop_request: StopRequest) -> None:
            stop_request()

    program = Tired()
    run_program(lambda: program)
    assert program.log == ["drain", "drained", "stop"]


def test_a_failed_start_is_cleaned_up_and_told() -> None:
    class Broken(Script):
        async def start(self, stop_request: StopRequest) -> None:
            raise OSError("no")

    program = Broken()
    with pytest.raises(OSError, match="no"):
        run_program(lambda: program)
    assert program.log == ["stop"]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_failed_drain_is_cleaned_up_and_told() -> None:
    class Leaky(Script):
        async def drain(self) -> None:
            raise ValueError("leak")

    program = Leaky(signal.SIGTERM)
    with pytest.raises(ValueError, match="leak"):
        run_program(lambda: program)
    assert program.log[-1] == "stop"


def test_open_files_are_raised_to_the_hard_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    limit = raise_file_limit()
    assert limit > 256
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limit
