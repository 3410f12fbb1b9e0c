"""What the end of a try means: for the sender, and for trying again at another connector.

RFC 9110 §9.2.2 forbids a proxy to repeat a POST that may have been processed. So a push is tried again only if surely
nothing of it reached a target (it was never handed to a transport, or the connector refused it), or if its route says
that repeating does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.errors import BY_WIRE, FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.ingress.context import TunnelSession

SHARE: Final = 0.2
"""Further tries that each push earns for all, so that trying again never multiplies a load."""

RESERVE: Final = 10.0
"""Further tries that are there without any push: a quiet relay can try again too. Comes back within a minute."""

MOST: Final = 100.0
"""Further tries that can be saved up."""

AGAIN: Final = "again"
HELD: Final = "held"
"""What becomes of a push whose try failed: another try now, or as soon as a connector is there. Else, why it ends:

ambiguous      it may have been delivered, and its route does not say that repeating does no harm
final          another try would end no better
body-gone      its body is longer than what is kept
tries-spent    it had all its tries
time-spent     its deadline
no-other       there is no other connector that exposes the target
budget-spent   the relay has tried again too often lately
"""

NO_CONNECTOR: Final = FAULTS["no-connector"]

_REFILL: Final = RESERVE / 60.0

_FIRST_WIRE: Final = NO_CONNECTOR.wire
_LAST_WIRE: Final = 299
_REFUSED: Final = FAULTS["tunnel-refused"]
_CONNECTOR_ERROR: Final = FAULTS["connector-error"]

_FINAL: Final = frozenset({"deadline-exceeded", "out-of-credit", "target-too-slow"})
"""What another try cannot mend: the time or the memory is used up."""

_MAY_WAIT: Final = frozenset({"no-connector", "tunnel-lost", "tunnel-refused", "connector-draining"})
"""The tunnel's failing rather than the target's: a tunnel that comes within `hold` can take the push."""


def fault_of(wire_code: int, refused: bool) -> Fault:
    """What a RESET tells the sender. The connector may be hostile: it cannot speak for the relay."""
    fault = BY_WIRE.get(wire_code)
    if fault is not None and fault.status is not None and _FIRST_WIRE <= wire_code <= _LAST_WIRE:
        # A push that surely was not delivered is not "ambiguous".
        return _REFUSED if refused and fault.code == "tunnel-lost" else fault
    return _REFUSED if refused else _CONNECTOR_ERROR


def can_mend(fault: Fault) -> bool:
    """Whether another try can end better."""
    return fault.status is not None and fault.status >= 502 and fault.code not in _FINAL


def may_wait(fault: Fault) -> bool:
    """Whether waiting for another tunnel makes sense after this."""
    return fault.code in _MAY_WAIT


def is_gone(session: TunnelSession | None) -> bool:
    """Whether the tunnel of the last try takes no push any more.

    What was on it goes elsewhere without the budget: there is no more of it than was on that tunnel, which can be lost
    only once, and the loss of a connector at full speed must cost no push that may be tried again.
    """
    return session is not None and (not session.link.is_open or session.link.is_draining)


class RetryBudget:
    """A bucket of further tries. `earn` with each push, `take` for each further try. `now` is monotonic seconds."""

    __slots__ = ("_at", "_tries")

    def __init__(self) -> None:
        self._tries = RESERVE
        self._at = 0.0

    def earn(self) -> None:
        """A push came."""
        if self._tries < MOST:
            self._tries += SHARE

    def take(self, now: float) -> bool:
        """Whether one more try is within the budget; it is taken if so."""
        if self._tries < RESERVE:
            self._tries = min(RESERVE, self._tries + (now - self._at) * _REFILL)
        self._at = now
        if self._tries < 1.0:
            return False
        self._tries -= 1.0
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tries:.1f} tries>"
