"""The two sides of the firewall: both are this machine's loopback, or each is a network namespace of its own."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.programs import BenchmarkError, Process

_CLONE_NEWNET = 0x40000000
_Result = TypeVar("_Result")


def enter_namespace(pid: int) -> None:
    """Moves the calling thread, and what it starts, into the network namespace of process `pid` (setns(2)).

    Raises:
        OSError: not allowed, or no such process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its address as the other side sees it, and the process that holds its namespace, if it has one."""

    address: str = "127.0.0.1"
    holder: int | None = None

    @property
    def listen_address(self) -> str:
        """Where targets listen: the loopback, or all addresses of a namespace that nobody else is in."""
        return "127.0.0.1" if self.holder is None else "0.0.0.0"

    def command(self, argv: list[str], user: int | None = None) -> list[str]:
        """The command line that runs `argv` on this side, as `user` if one is given; nothing forks on the way."""
        as_user = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        inside = [] if self.holder is None else ["nsenter", f"--net=/proc/{self.holder}/ns/net"]
        return [*inside, *as_user, *argv]

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Calls `function` on this side: in a thread that has moved into the namespace."""
        if self.holder is None:
            return function()
        results: list[_Result] = []
        failures: list[Exception] = []

        def run(holder: int) -> None:
            try:
                enter_namespace(holder)
                results.append(function())
            except Exception as error:  # noqa: BLE001 - handed to the caller below
                failures.append(error)

        thread = threading.Thread(target=run, args=(self.holder,))
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def connect(self, port: int, *, host: str = "127.0.0.1", timeout: float = 0.5) -> socket.socket:
        """A TCP connection from this side."""
        return self.call(lambda: socket.create_connection((host, port), timeout))


HERE = Side()


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: Process, side: Side, *, host: str = "127.0.0.1", timeout: float = 15.0) -> None:
    """Waits until somebody accepts on `port` of `side`.

    Raises:
        BenchmarkError: `process` ended, or nobody listens in time; with the last lines of its output.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.is_running:
        try:
            side.connect(port, host=host).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchmarkError(f"{process.name} does not listen on {host}:{port}\n{process.tail()}")


def wait_for_file(path: Path, process: Process, timeout: float = 15.0) -> str:
    """Waits until `process` has written `path` whole (it renames it into place); returns its text.

    Raises:
        BenchmarkError: it ended, or took too long.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.is_running:
        if path.exists():
            return path.read_text()
        time.sleep(0.02)
    raise BenchmarkError(f"{process.name} did not write {path.name}\n{process.tail()}")
