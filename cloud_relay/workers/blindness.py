"""A worker that cannot read the state does not know what was revoked or switched off since: it says so, and in the end
serves nobody.

    SERVING ─▶ the state cannot be read ─▶ for BLIND_AFTER ─▶ BLIND: pushes get 503, connectors are turned away
       ▲                                                        │
       └─────────────── it can be read again ───────────────────┘

Its siblings, if they can read it, let in whoever comes meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cloud_relay.health import RelayState
from shared.errors import FAULTS
from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.handover.follow import Follower
    from cloud_relay.workers.host import Host
    from cloud_relay.workers.wide import WideRegistry
    from shared.metrics import Metrics

BLIND_AFTER: Final = 60.0
"""Seconds for which a worker serves on by what it knew. A disk that is away for a moment is back by then; and a
revocation that counts no sooner would be none."""

LOOK: Final = 0.5
"""Seconds between looks. Looks are counted, not seconds: who was frozen has not looked."""

_FAULT: Final = FAULTS["cannot-judge-credential"]
_LETS_IN: Final = frozenset({RelayState.SERVING, RelayState.DRAINING})

log = get_logger("relay.workers")


class Blindness:
    """One at each worker; `run` it as a task once the app has doors."""

    def __init__(self, app: RelayApp, number: int, follower: Follower, host: Host, wide: WideRegistry) -> None:
        self._number = number
        self.is_blind = False
        self._app = app
        self._follower = follower
        self._host = host
        self._wide = wide
        self._is_paused = False
        self._otherwise = RelayState.SERVING
        """What the app's state would be if it could see."""
        self._unread = 0
        """Looks in a row at which the state could not be read."""

    def __repr__(self) -> str:
        return f"<Blindness {self.is_blind} unread={self._follower.unread_for:.1f}s>"

    async def run(self) -> NoReturn:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 — whatever it is, who is blind must stay shut, and open again
                log_limited(log, "error", "blindness", "a bug: doors were not shut or opened", exc_info=error)

    def look(self) -> None:
        """Serve nobody, or again, as it is now."""
        self._unread = self._unread + 1 if self._follower.unread_for else 0
        is_blind = self._unread * LOOK >= BLIND_AFTER
        if is_blind and not self.is_blind and self._app.state in _LETS_IN:
            self._shut()
        elif self.is_blind and not is_blind:
            self._open()
        self.keep_shut()

    def keep_shut(self) -> None:
        """Whatever the app has come to: while this worker is blind it serves nobody, nor who was let in by a hair."""
        app = self._app
        if not self.is_blind:
            return
        if app.state in _LETS_IN:
            self._otherwise = app.state
            app.ingress.state = RelayState.BLIND
        if app.doors is not None:
            app.doors.cut_off(_FAULT)
        if (
            app.state is RelayState.BLIND and self._otherwise is RelayState.SERVING
        ):  # else it leaves, and lets in nobody
            self._make_way()

    @property
    def is_relieved(self) -> bool:
        """Whether somebody else serves who comes to this relay."""
        return any(one.is_connected and not one.is_blind for one in self._wide.siblings)

    def health(self) -> dict[str, Any]:
        """For /readyz: which workers serve nobody, and for how long this one could not read the state."""
        blind = [one.number for one in self._wide.siblings if one.is_blind]
        own = [self._number] if self.is_blind else []
        return {"state_unread_s": round(self._follower.unread_for, 1), "blind_workers": sorted(blind + own)}

    def add_gauges(self, metrics: Metrics) -> None:
        """Show how it is. Who serves nobody is told by the first worker, for all: others may have no way to."""
        metrics.gauge(
            "qanat_relay_workers_blind", "Workers that serve nobody, since they cannot read the state.",
            lambda: float(len(self.health()["blind_workers"])) if self._number == 0 else 0.0,
        )  # fmt: skip
        metrics.gauge(
            "qanat_relay_state_unread_seconds", "For how long the state could not be read; 0 while it can.",
            lambda: self._follower.unread_for,
        )  # fmt: skip
        metrics.gauge(
            "qanat_relay_sender_state_unfit", "1 while files of the senders' state are not fit: what was known counts.",
            lambda: float(self._app.senders.is_unfit),
        )  # fmt: skip

    # --- within

    def _shut(self) -> None:
        app, doors = self._app, self._app.doors
        log.error(
            "the state could not be read for too long: this worker serves nobody until it can",
            seconds=round(self._follower.unread_for), remedy="look at the disk of state_dir, and at open files",
        )  # fmt: skip
        self.is_blind = True
        self._otherwise = app.state
        app.ingress.state = RelayState.BLIND
        if doors is not None:
            doors.tunnel.suspend(_FAULT)
        self._host.tell_blind(is_blind=True)

    def _open(self) -> None:
        app, doors = self._app, self._app.doors
        log.warning("the state can be read again: this worker serves again")
        self.is_blind = False
        if app.state is RelayState.BLIND:
            app.ingress.state = self._otherwise
        if doors is not None:
            doors.tunnel.resume()
            doors.tunnel.recheck()
            if self._is_paused and app.state is RelayState.SERVING:
                doors.resume_ports()
        self._is_paused = False
        self._host.tell_blind(is_blind=False)

    def _make_way(self) -> None:
        """Leave who comes to a sibling, as long as there is one; else they are told."""
        doors = self._app.doors
        if doors is None or self.is_relieved is self._is_paused:
            return
        self._is_paused = not self._is_paused
        if self._is_paused:
            doors.pause_ports()
        else:
            doors.resume_ports()
