"""The new process, as the old one sees it: started, listened to, waited for, and ended if it comes to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any, Final

from shared.channel import Channel, Message
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger

REAP: Final = 5.0
"""Seconds for a process that was killed to be gone."""

log = get_logger("relay.upgrade")


class Successor:
    """`on_end` is called once, when it is gone, whether or not it had said that it goes; `on_word` gets each word."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        on_end: Callable[[], None],
        on_word: Callable[[str, Message], None] = lambda _word, _message: None,
    ) -> None:
        self.channel = channel
        self.said: dict[str, Message] = {}
        """The last message of each kind."""
        self.has_ended = False
        self._process = process
        self._on_end = on_end
        self._on_word = on_word
        self._news = asyncio.Event()
        channel.start(asyncio.get_running_loop(), self._heard, self._closed)

    def __repr__(self) -> str:
        return f"<Successor {self.pid} said {', '.join(self.said) or 'nothing'}>"

    @property
    def pid(self) -> int:
        """Its number; 0 until it has said so, or was started as our child."""
        return int(self.said["hello"]["pid"]) if "hello" in self.said else 0

    @property
    def has_failed(self) -> bool:
        """Whether it cannot take over, or is gone."""
        return self.has_ended or "failed" in self.said

    def say(self, word: str, **more: Any) -> None:
        """Tell it something."""
        self.channel.send({"say": word, **more})

    async def expect(self, word: str, seconds: float) -> Message:
        """What it says under this word, once it has. CommandError if it failed, is gone, or takes longer than that."""
        try:
            async with asyncio.timeout(seconds):
                while not (word in self.said or self.has_failed):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise CommandError(
                ExitCode.FAILED, f"the new process did not come to {word!r} within {seconds:g} s",
                "Nothing has changed: the old one serves on. Look at the log of both.", "successor-too-slow",
            ) from error  # fmt: skip
        if self.has_failed:  # whatever it had said before
            raise await self._failure()
        return self.said[word]

    async def heard(self, seconds: float) -> None:
        """Until it has said something, or so long."""
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        if self.pid and not self.has_ended:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        elif self._process.poll() is None:
            self._process.kill()
        try:
            async with asyncio.timeout(REAP):
                while not self.has_ended:  # the kernel closes the channel with the process
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:  # a detached one that never said who it is: the state's lock keeps it from serving
            log.error("the new process could not be ended")
        self.let_go()
        await self.reap()

    async def reap(self) -> int | None:
        """How it ended; None if that is not for us to know (it was no child), or not known yet."""
        for _ in range(int(REAP / 0.02)):
            if (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(0.02)
        return None

    def let_go(self) -> None:
        """Hear nothing more of it."""
        self.channel.close()

    # --- within

    def _heard(self, message: Message, passed: socket.socket | None) -> None:
        if passed is not None:
            passed.close()
        word = str(message.get("say"))
        self.said[word] = message
        self._news.set()
        self._on_word(word, message)

    def _closed(self) -> None:
        self.has_ended = True
        self._news.set()
        self._on_end()

    async def _failure(self) -> CommandError:
        if "failed" in self.said:
            return refusal_of(self.said["failed"]["problem"], "the new process cannot take over")
        code = await self.reap()
        how = "without a word" if not code else f"by signal {-code}" if code < 0 else f"with exit status {code}"
        return CommandError(
            ExitCode.FAILED, f"the new process ended {how}",
            "Nothing has changed: the old one serves on. What the new one said before is in the log.", "successor-died",
        )  # fmt: skip


def refusal_of(problem: Message, what: str) -> CommandError:
    """What a command ends with since another process has told this problem. `what` says what cannot be."""
    return CommandError(
        ExitCode(problem["exit_code"]), f"{what}: {problem['title']}", problem.get("remedy", ""), problem["code"],
        detail=problem.get("detail", ""),
    )  # fmt: skip
