"""Where a push goes, and whether it goes on elsewhere after a try that failed. The rules are in retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.ingress.access import log_try
from cloud_relay.ingress.push_queue import PushQueued
from cloud_relay.ingress.retry import AGAIN, HELD, NO_CONNECTOR, can_mend, is_gone, may_wait

if TYPE_CHECKING:
    from cloud_relay.ingress.context import TunnelSession
    from cloud_relay.routing import Route
    from shared.errors import Fault


class PushTries(PushQueued):
    """Between two tries."""

    __slots__ = ()

    def _choose(self, route: Route, fault: Fault | None = None) -> TunnelSession | None:
        """A connector that was not tried yet; else a tunnel that was not; else one that was.

        After a `fault` of the target's the first of them is another connector, be it on standby; after one of the
        tunnel's it is the best that there is.
        """
        choose, tried = self._context.registry.choose, self._tried
        key = route.tenant, route.location, route.target
        if not tried:
            return choose(*key)
        if fault is None or may_wait(fault):
            return choose(*key, tried) or choose(*key)
        return choose(*key, tried, other_connector=True) or choose(*key, tried) or choose(*key)

    def _is_worth_it(self, route: Route, other: TunnelSession, fault: Fault) -> bool:
        """Another tunnel of the same connector mends only what was the tunnel's failing."""
        if route.idempotent:
            return True
        if may_wait(fault):
            return other not in self._tried
        return all(other.identity.connector != one.identity.connector for one in self._tried)

    def _try_again(self, fault: Fault, *, is_safe: bool) -> None:
        """A try ended without an answer. `is_safe`: surely nothing of the push reached a target."""
        route, session = self.route, self.session
        if route is None or session is None:
            return
        now = self._ingress.time()
        # Where another worker had no connector after all, nobody was asked: the push waits, and no try is spent.
        is_vain = fault is NO_CONNECTOR and self._context.registry.doubt(route.key, session)
        if not is_vain:
            self._tried += (session,)
        self._context.health.failed(route.key, session.identity.connector, fault.code, now)
        spent = self.attempt - 1 if is_vain else self.attempt
        then, other = self._what_then(route, fault, is_safe, now, spent)
        route.metrics.try_failed(fault.code, then)
        if then == AGAIN and other is not None:
            log_try(self, self._context, fault, then)
            self.attempt = spent
            self._open(route, other, now)
            self._go_on()
        elif then == HELD:
            log_try(self, self._context, fault, then)
            self.attempt = spent
            self.fault = fault
            self._hold(route, now)
            self._go_on()
        else:
            self._fail(fault)

    def _what_then(
        self, route: Route, fault: Fault, is_safe: bool, now: float, spent: int
    ) -> tuple[str, TunnelSession | None]:
        """After a try that failed, `spent` in all: AGAIN and where, HELD, or why the push ends here."""
        if not can_mend(fault):
            return "final", None
        if not is_safe and not route.idempotent:
            return "ambiguous", None
        if self._pieces is None:
            return "body-gone", None
        if spent >= self._context.settings.max_tries:
            return "tries-spent", None
        if now >= self._progress + route.timeout:
            return "time-spent", None
        other = self._choose(route, fault)
        if other is None:
            return (HELD, None) if may_wait(fault) else ("no-other", None)
        if not self._is_worth_it(route, other, fault):
            return "no-other", None
        return (AGAIN, other) if self._may_try(route, now) else ("budget-spent", None)

    def _may_try(self, route: Route, now: float) -> bool:
        """Each try but a push's first is taken from the budget of further tries, unless its tunnel is gone."""
        if not self.attempt:
            return True
        if not is_gone(self.session) and not self._ingress.retries.take(now):
            return False
        route.metrics.retries += 1
        return True

    def _open(self, route: Route, session: TunnelSession, now: float) -> None:
        """Put the push on a tunnel."""
        raise NotImplementedError

    def _hold(self, route: Route, now: float) -> None:
        """Wait for a connector."""
        raise NotImplementedError
