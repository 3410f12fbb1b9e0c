"""One worker's place at its supervisor: its process, our end of its channel, and how long it has been silent."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.workers.passing import MAX_WAITING, SILENCE
from shared.channel import Channel, Message
from shared.logs import get_logger

if TYPE_CHECKING:
    from shared.config import Edition

LOOK: Final = 1.0
"""Seconds between two looks at who is silent. Looks are counted, not seconds: while the machine sleeps nobody looks."""

STARTING: Final = 60
"""Looks within which a process must have come to serve, on a busy machine."""

MERCY: Final = 2
"""Looks between SIGABRT, which makes a process whose loop hangs say where, and SIGKILL."""

log = get_logger("relay.workers")


class Worker:
    """The place of worker `number`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.edition: Edition | None = None
        """The config that it uses."""
        self.is_ready = asyncio.Event()
        self.has_begun, self.is_settled = asyncio.Event(), asyncio.Event()
        """A process was started; and it serves, or has ended without ever serving."""
        self.is_leaving = False
        """Whether it was asked to leave, for a new process in its place."""
        self.failure: dict[str, Any] = {}
        """A problem object: why the last process did not start, as far as it has said."""
        self.has_served = self.is_closed = False
        self._silent = 0
        self._is_watched = False

    def __repr__(self) -> str:
        pid = self.process.pid if self.process is not None else None
        return f"<Worker {self.number} pid={pid}{' ready' if self.is_ready.is_set() else ''}>"

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    @property
    def can_take(self) -> bool:
        """Whether it could be given one more connection."""
        return self.channel is not None and self.channel.waiting < MAX_WAITING

    def begins(self, channel: Channel, edition: Edition) -> None:
        """A new process is about to start, with this config."""
        self.channel = channel
        self.edition = edition
        self.failure = {}
        self.is_closed = self.is_leaving = self._is_watched = False
        self._silent = 0
        self.is_settled.clear()
        self.has_begun.set()

    def leave(self) -> None:
        """Have it leave, once its senders have. The next process is to be told from this one by `has_begun`."""
        self.is_leaving = True
        self.is_ready.clear()
        self.has_begun.clear()
        self.is_settled.clear()
        self.say({"say": "leave"})

    def ends(self) -> None:
        """Its process is over, or has never begun."""
        self.is_ready.clear()
        self._is_watched = False
        if self.has_begun.is_set():
            self.is_settled.set()
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def serves(self) -> None:
        """It has said that it is ready."""
        self.is_ready.set()
        self.is_settled.set()
        self.has_served = self._is_watched = True
        self._silent = 0

    def heard(self) -> None:
        """It has said something. Before it serves, that does not count."""
        if self._is_watched:
            self._silent = 0

    def look(self) -> None:
        """To be called every LOOK seconds: one whose loop does not turn, or that does not come to serve, is ended, and
        another will take its place."""
        self._silent += 1
        if not self.is_running:
            return
        patience = SILENCE if self._is_watched else STARTING
        if self._silent == patience:
            what = "is silent" if self._is_watched else "has not come to serve"
            log.error("a worker hangs, and is ended", worker=self.number, cause=f"it {what} for {patience} s")
            self.signal(signal.SIGABRT)
        elif self._silent >= patience + MERCY:
            self.signal(signal.SIGKILL)

    def say(self, message: Message) -> None:
        """Tell it something, if it is there."""
        if self.channel is not None:
            self.channel.send(message)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is somebody to get it."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def end(self, patience: float) -> None:
        """Wait until its process is over, and kill it if it takes longer than `patience` seconds."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await process.wait()


def shown(code: int) -> dict[str, object]:
    """How a process ended, for the log."""
    if code < 0:
        return {"signal": signal.Signals(-code).name}
    return {"exit_code": code}
