"""What lives on by a client certificate ends with it: TCP connections, and pushes that became WebSockets.

An HTTP push is judged when it begins, and is short. What stays open for days is looked at once a second. Certificates
go by the time of day, which may be set meanwhile: so one look at all of them, and no timer for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.certificates import EXPIRED

if TYPE_CHECKING:
    from cloud_relay.certificates import PeerCertificate
    from shared.errors import Fault

INTERVAL: Final = 1.0
"""Seconds between two looks."""


class Certified(Protocol):
    """What is known by a certificate, and open."""

    @property
    def peer(self) -> PeerCertificate | None:
        """The certificate; None: it goes by something else."""

    def end(self, fault: Fault) -> None:
        """Cut it off, for this reason."""


class CertificateWatch:
    """All of them. It asks for no time while there is none."""

    __slots__ = ("_loop", "_open", "_timer", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.time) -> None:
        """`now` is the time by which certificates are judged, Unix seconds."""
        self.now = now
        self._loop = loop
        self._open: set[Certified] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Certified) -> None:
        """From now on it ends with its certificate, if it has one. Whoever adds it discards it."""
        if one.peer is not None:
            self._open.add(one)
            if self._timer is None:
                self._timer = self._loop.call_at(self._loop.time() + INTERVAL, self._look)

    def discard(self, one: Certified) -> None:
        """It is over."""
        self._open.discard(one)
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __len__(self) -> int:
        return len(self._open)

    def _look(self) -> None:
        # Before anything else: a bug in the end of one must not keep the others from theirs.
        self._timer = self._loop.call_at(self._loop.time() + INTERVAL, self._look)
        now = self.now()
        for one in list(self._open):
            if one.peer is not None and not one.peer.is_in_time(now):
                one.end(EXPIRED)
