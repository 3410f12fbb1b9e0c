"""The service manager's end of sd_notify(3): a datagram socket, and what came by it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self


class Manager:
    """Listens at a path, or with `is_abstract` in the abstract namespace; `address` is NOTIFY_SOCKET."""

    def __init__(self, folder: Path, *, is_abstract: bool = False) -> None:
        path = str(folder / "notify")
        self.address = f"@{path}" if is_abstract else path
        self.said: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{path}" if is_abstract else path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def hear(self) -> list[list[str]]:
        """The messages that have come since the last time, each as its lines; `said` has all of them."""
        came = []
        while True:
            try:
                came.append(self._socket.recv(64 * 1024).decode().split("\n"))
            except BlockingIOError:
                break
        self.said += came
        return came

    def heard(self, line: str) -> int:
        """How often a line that starts so has been said until now."""
        self.hear()
        return sum(one.startswith(line) for message in self.said for one in message)

    @property
    def status(self) -> str:
        """The last one."""
        self.hear()
        told = [line for message in self.said for line in message if line.startswith("STATUS=")]
        return told[-1].removeprefix("STATUS=") if told else ""

    def fill(self) -> None:
        """Let nothing more into the queue: what a manager does that has no time."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
            address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
            try:
                while True:
                    other.sendto(b"X=1", address)
            except BlockingIOError:
                pass

    def environment(self, watchdog: float = 0.0, pid: int | None = None) -> dict[str, str]:
        """What a service is started with. As systemd says it, `pid` is whom the watchdog is for."""
        found = {"NOTIFY_SOCKET": self.address}
        if watchdog:
            found |= {"WATCHDOG_USEC": str(round(watchdog * 1e6)), "WATCHDOG_PID": str(pid or os.getpid())}
        return found
