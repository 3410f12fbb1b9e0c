"""A push over a quota that waits for its turn. The line is in fair_queue; here is what the push does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.ingress.push_end import PushState
from cloud_relay.ingress.push_local import PushLocal
from shared.errors import FAULTS

if TYPE_CHECKING:
    from cloud_relay.routing import Route
    from cloud_relay.senders import Sender
    from shared.errors import Fault

_QUEUED = PushState.QUEUED
_SWITCHED_OFF = FAULTS["sender-disabled"]
_OVERLOADED = FAULTS["overloaded"]


class PushQueued(PushLocal):
    """Between the verdict and admission."""

    __slots__ = ()

    def _over_quota(self, route: Route) -> Fault:
        """The answer to what finds no place in time: over a quota of its own, or held back only for other senders."""
        sender = self.sender
        return _OVERLOADED if sender is not None and sender.gate.is_held_back else route.quota_fault

    def _wait_for_turn(self, route: Route, sender: Sender, now: float) -> bool:
        """Join the line; False if there is no place, and the push has to be refused."""
        settings = self._context.settings
        if not settings.queue:
            return False
        ticket = self._ingress.queue.join(sender, route, self._on_turn, settings.queue)
        if ticket is None:
            return False
        self._state = _QUEUED
        self._held_since = now
        self.due = now + min(settings.queue_wait, route.timeout)
        self._waiter = ticket
        if not self._held_bytes:
            self._hold_bytes(sum(map(len, self._pieces or ())))
        return True

    def _on_turn(self) -> None:
        """The push was let in, and counted."""
        self._waiter = None
        route, sender = self.route, self.sender
        if self._state is not _QUEUED or route is None or sender is None:
            return
        self._is_admitted = True
        now = self._ingress.time()
        self.queued = now - self._held_since
        try:
            if sender.is_disabled:
                self._fail(_SWITCHED_OFF)
                return
            self._admitted(route, sender, now)
            self._go_on()
        except Exception as error:  # noqa: BLE001 - reported; a bug in one push must harm no other
            self._on_bug(error)

    def _admitted(self, route: Route, sender: Sender, now: float) -> None:
        """Go on to a connector."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """Reading goes on, and the timer is set to what comes next."""
        raise NotImplementedError
