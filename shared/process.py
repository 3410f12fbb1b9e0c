"""What both programs do as processes: the event loop, signals, the limit on open files, garbage collection.

SIGTERM, SIGINT   drain, then end; the second one ends at once
SIGHUP            reload

A process that a supervisor of ours has started gets SIGTERM from that one, and from a service manager that signals all
processes of the service: any number of them says: drain, then end. SIGINT says: at once.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable
from typing import Final, Protocol

from shared.service_manager import ServiceManager
from shared.tasks import cancel, spawn

MAX_OPEN_FILES: Final = 1 << 20
"""Where the hard limit is "unlimited": a million sockets are beyond any figure of ours, and tables grow with this."""

_GC_THRESHOLDS: Final = (10_000, 5, 400)
"""Pushes make few cycles. Python's 700 would look through the young objects dozens of times a second under load.

A look takes half a microsecond an object, and nothing else goes on meanwhile: 50,000 of middle age are the most that is
looked through as tunnels come, and all of them only when 20 million are there that were not."""


class Program(Protocol):
    """What `run_program` runs. `start` either comes up whole or cleans up and raises; `stop` may follow at any time."""

    async def start(self, stop_request: StopRequest) -> None: ...

    async def drain(self) -> None:
        """Finish what is under way. Bounded in time by itself; may be cancelled."""

    async def stop(self) -> None:
        """End everything at once, and let go of it."""

    def request_reload(self) -> None:
        """Reload soon. Must not raise."""

    def describe(self) -> str:
        """How it is, in a sentence, for whoever asks the service manager. Must not raise."""

    @property
    def patience(self) -> float:
        """Seconds that `drain` and `stop` may take together."""


class StopRequest:
    """Asks the program to end: once in good order, twice at once.

    A program that ends by itself, or with another one, sets `is_wanted`: who asks then is the first one all the same.
    """

    __slots__ = ("_is_asked", "is_urgent", "is_wanted")

    def __init__(self) -> None:
        self.is_wanted = asyncio.Event()
        self.is_urgent = asyncio.Event()
        self._is_asked = False

    def __call__(self) -> None:
        if self._is_asked:
            self.is_urgent.set()
        self._is_asked = True
        self.is_wanted.set()

    def hurry(self) -> None:
        """At once, whatever was asked before."""
        self.is_wanted.set()
        self.is_urgent.set()


def run_program(
    make: Callable[[], Program], manager: ServiceManager | None = None, *, is_supervised: bool = False
) -> None:
    """Make a program inside a fresh event loop, run it until a signal or a request ends it, and clean up.

    `manager` is told when it serves, how it is, and when it ends. `is_supervised`: a supervisor of ours has started it.
    What `start` raises passes through.
    """
    raise_file_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(make, manager or ServiceManager(), is_supervised=is_supervised))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where there is one, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def raise_file_limit() -> int:
    """Raise this process's limit on open files as far as it may; gives the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
    return wanted


def tune_gc() -> None:
    """Call once everything long-lived is there: it is never looked through again, and the young ones more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _run(make: Callable[[], Program], manager: ServiceManager, *, is_supervised: bool) -> None:
    loop = asyncio.get_running_loop()
    program = make()
    stop_request = StopRequest()
    handlers: dict[int, Callable[[], None]] = {
        signal.SIGTERM: stop_request.is_wanted.set if is_supervised else stop_request,
        signal.SIGINT: stop_request.hurry if is_supervised else stop_request,
        signal.SIGHUP: program.request_reload,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        await program.start(stop_request)
        tune_gc()
        manager.ready(program.describe)
        await stop_request.is_wanted.wait()
        manager.stopping(program.patience)
        await _drain(program, stop_request)
    finally:
        await program.stop()
        manager.close()
        for number in handlers:
            loop.remove_signal_handler(number)


async def _drain(program: Program, stop_request: StopRequest) -> None:
    drained = spawn(program.drain(), "drain")
    hurried = spawn(stop_request.is_urgent.wait(), "second stop request")
    try:
        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
        if drained.done():
            drained.result()
    finally:
        await cancel(drained, hurried)
