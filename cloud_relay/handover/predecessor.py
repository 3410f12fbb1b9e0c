"""The old process, as the new one sees it: what it gives, and how it is while it serves on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from cloud_relay.handover.passing import MAX_PASSED
from shared.channel import Channel, Message
from shared.cli import expected_fault
from shared.exits import CommandError, ExitCode
from shared.status import version


class Predecessor:
    """`start` it inside the loop. When it dies, whatever was still its own is this process's: nobody else holds it."""

    def __init__(self, channel: Channel) -> None:
        self.said: dict[str, list[Message]] = {}
        self.reports: list[Message] = []
        """How it is, and those before it that are not gone yet, newest first."""
        self.on_passed: Callable[[Message, socket.socket], None] | None = None
        """Gets connections that arrived there and are for us."""
        self.on_stop: Callable[[], None] | None = None
        """Called when it was told to end, and this process is to end with it."""
        self._kept: deque[tuple[Message, socket.socket]] = deque()
        self._channel = channel
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Predecessor {'gone' if self.is_gone else 'there'}, said {', '.join(self.said) or 'nothing'}>"

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return not self._channel.is_open

    def start(self) -> None:
        """Hear it."""
        self._channel.start(asyncio.get_running_loop(), self._heard, self._closed)

    def say(self, word: str, **more: Any) -> None:
        """Tell it something."""
        self._channel.send({"say": word, **more})

    async def wait_for(self, word: str, seconds: float | None = None) -> bool:
        """Until it has said this or is gone; False after so many seconds without either."""
        try:
            async with asyncio.timeout(seconds):
                while word not in self.said and not self.is_gone:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take_passed(self, take: Callable[[Message, socket.socket], None]) -> None:
        """Give connections that it passes on to `take`, those first that came before."""
        self.on_passed = take
        kept, self._kept = self._kept, deque()
        for message, sock in kept:
            take(message, sock)

    def stop(self) -> None:
        """Hear it no more."""
        self._channel.stop()
        kept, self._kept = self._kept, deque()
        for _, sock in kept:
            sock.close()

    # --- within

    def _heard(self, message: Message, passed: socket.socket | None) -> None:
        if passed is not None:
            if self.on_passed is None:
                if len(self._kept) >= MAX_PASSED:  # who has waited longest is the likeliest to have given up
                    self._kept.popleft()[1].close()
                self._kept.append((message, passed))
            else:
                self.on_passed(message, passed)
            return
        word = str(message.get("say"))
        if word == "stop" and self.on_stop is not None:
            self.on_stop()
        if word == "report":
            self.reports = message["reports"]
        else:
            self.said.setdefault(word, []).append(message)
        self._news.set()

    def _closed(self) -> None:
        self.reports = []
        self._news.set()


def greet(channel: Channel) -> None:
    """The first word of a new process."""
    channel.send({"say": "hello", "pid": os.getpid(), "version": version()})


def tell_failure(channel: Channel, error: Exception) -> None:
    """The last word of one that cannot take over: what a command would have ended with."""
    fault = expected_fault(error) or CommandError(
        ExitCode.FAILED, f"{type(error).__name__}: {error}"[:1000], "The log says more.", "internal-error"
    )
    problem = {**fault.problem(), "detail": str(fault.extra.get("detail", ""))[:4000]}
    problem.pop("problems", None)
    channel.send({"say": "failed", "problem": problem})
