"""Watches files by their content, and SIGHUP, and says when a config or a certificate should be read again.

Content is what counts, not names or times: `touch` is no change, and Kubernetes' swap of the `..data` symbolic link is
one. A change is told once it has settled, so that a file that is still being written, or a certificate whose key has
not arrived yet, is not read half.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from shared.logs import get_logger

MAX_FILE: Final = 64 << 20
"""Bytes of a file that are looked at."""

_BLOCK: Final = 1 << 20
_MAX_ROUNDS: Final = 20

log = get_logger("reload")


class Reason(StrEnum):
    """Why to read again."""

    FILES = "files"
    SIGNAL = "signal"


class Change(NamedTuple):
    """What `on_change` gets: why, and the files that differ from the last time (perhaps none after a signal)."""

    reason: Reason
    paths: tuple[Path, ...]


OnChange = Callable[[Change], Awaitable[None]]
Pause = Callable[[asyncio.Event, float], Awaitable[None]]
Digests = dict[Path, bytes | None]


def digest(path: Path) -> bytes | None:
    """A hash of what is in the file, through symbolic links; None if it cannot be read. Folders: the names in it."""
    hashed = hashlib.blake2b(digest_size=16)
    try:
        if path.is_dir():
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
            hashed.update(os.fsencode("\0".join(names)))
            return hashed.digest()
        with path.open("rb") as file:
            left = MAX_FILE
            while left > 0 and (block := file.read(min(_BLOCK, left))):
                hashed.update(block)
                left -= len(block)
    except OSError:
        return None
    return hashed.digest()


def digests(paths: Iterable[Path]) -> Digests:
    """The hash of each path."""
    return {path: digest(path) for path in paths}


class ReloadWatcher:
    """Calls `on_change` after a change of content, or after `trigger`; never twice at once.

    `paths` is asked at each look, so that files which a new config names are watched from then on. Looks are
    `interval` seconds apart; a change must stay the same for `settle` seconds. An exception of `on_change` is logged,
    and the watch goes on. `pause` waits that many seconds or until the event is set; tests give their own.
    """

    def __init__(
        self,
        paths: Callable[[], Iterable[Path]],
        on_change: OnChange,
        interval: float = 2.0,
        settle: float = 0.3,
        pause: Pause | None = None,
    ) -> None:
        self._paths = paths
        self._on_change = on_change
        self._interval = interval
        self._settle = settle
        self._pause = pause or _pause
        self._triggered = asyncio.Event()
        self._known: Digests | None = None

    def trigger(self) -> None:
        """Read again now, whether or not a file changed; what SIGHUP does. Several before it is read count as one."""
        self._triggered.set()

    def watch_sighup(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let SIGHUP call `trigger`."""
        loop.add_signal_handler(signal.SIGHUP, self.trigger)

    def prime(self) -> None:
        """Take the files as they are now for what is in force. `run` does it otherwise, when it starts."""
        self._known = digests(self._paths())

    def adopt(self) -> None:
        """Take the files that have just come to be watched as they are now, not as they are at the next look."""
        if self._known is not None:
            self._known |= digests(path for path in self._paths() if path not in self._known)

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        if self._known is None:
            self._known = await self._look()
        while True:
            await self._pause(self._triggered, self._interval)
            seen = await self._look()
            if not self._triggered.is_set():
                if not _differing(self._known, seen):
                    self._known = seen  # with what has come to be watched, and without what no longer is
                    continue
                seen = await self._settled(seen)
            reason = Reason.SIGNAL if self._triggered.is_set() else Reason.FILES
            self._triggered.clear()
            changed = _differing(self._known, seen)
            self._known = seen
            if changed or reason is Reason.SIGNAL:
                await self._tell(Change(reason, changed))

    async def _look(self) -> Digests:
        # In a thread: a network file system may take its time.
        return await asyncio.to_thread(digests, list(self._paths()))

    async def _settled(self, seen: Digests) -> Digests:
        """Wait until two looks agree, or somebody asks for it now, or it has lasted too long to be a single write."""
        for _ in range(_MAX_ROUNDS):
            await self._pause(self._triggered, self._settle)
            again = await self._look()
            if again == seen or self._triggered.is_set():
                return again
            seen = again
        return seen

    async def _tell(self, change: Change) -> None:
        try:
            await self._on_change(change)
        except Exception:  # whatever a reload stumbles over, the next one must come
            log.exception("reload failed; what was in force stays", reason=change.reason)


def _differing(known: Digests, seen: Digests) -> tuple[Path, ...]:
    """What differs among paths in both; a path that has just come to be watched is no change."""
    return tuple(path for path, value in seen.items() if path in known and known[path] != value)


async def _pause(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
