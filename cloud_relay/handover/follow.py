"""A process that has let go of the state still has tunnels and connections: what the next one decides counts here, too.

Revocations, blocks, and senders that are switched off are written by the process that has the state; this one reads
them again several times a second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

from cloud_relay.identity.store import StateError
from shared.exits import CommandError
from shared.logs import get_logger, log_limited
from shared.pki.files import PkiError

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.identity.service import IdentityService

LOOK: Final = 0.25
"""Seconds between looks: a revocation is to cut within one."""

PATIENCE: Final = 20
"""Looks that may fail, one after the other, before this process had better end."""

log = get_logger("relay.upgrade")


class Follower:
    """Follows the state for one app."""

    def __init__(self, app: RelayApp) -> None:
        self._app = app
        self._failed = 0
        self._read_at: float | None = None
        self._is_news = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether it has not known for a while what was revoked or switched off."""
        return self._failed >= PATIENCE

    @property
    def unread_for(self) -> float:
        """Seconds for which the state could not be read, be it that reading fails or that it never ends; 0.0 where it
        was read within the last few looks."""
        passed = 0.0 if self._read_at is None else self._app.loop.time() - self._read_at
        return passed if passed >= PATIENCE * LOOK else 0.0

    async def run(self) -> NoReturn:
        """Follow, until cancelled. What cannot be read is tried again, and said."""
        self._failed, self._read_at = 0, self._app.loop.time()
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 — whatever it is, it must not go unnoticed that nobody follows
                self._failed += 1
                log_limited(log, "error", "follow", "the state cannot be read: revocations are not known here",
                            cause=f"{type(error).__name__}: {error}")  # fmt: skip
            else:
                self._failed, self._read_at = 0, self._app.loop.time()
            await self._rest()

    def hasten(self) -> None:
        """Look now: there is something new."""
        self._is_news.set()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK):
                await self._is_news.wait()
        except TimeoutError:
            pass
        self._is_news.clear()

    async def look(self) -> None:
        """Take in what has changed. Raises StateError, PkiError, OSError."""
        if self._app.identity is not None:
            await self._app.identity.follow()
        self._app.senders.follow()

    async def take_back(self, identity: IdentityService) -> None:
        """Have the state again, as soon as the process that had it is gone; until then nothing is issued here."""
        while True:
            try:
                await identity.take_back()
                self._app.senders.follow()
            except (CommandError, StateError, PkiError, OSError) as error:
                log_limited(log, "error", "take back", "the state cannot be taken back yet", cause=str(error))
                await asyncio.sleep(LOOK)
            else:
                return
