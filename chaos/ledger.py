"""The ledger of one run: does what senders were told agree with what targets got?

Pure: it takes records in any order, and the terms of the fault, and says what does not fit. A finding is a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from chaos.pushes import IDEMPOTENT, Arrival, Try
from chaos.terms import Terms, Window
from shared.errors import FAULTS

SLACK: Final = 0.3
"""Seconds that two processes of a busy machine may differ in when they note the same event."""

AGAIN: Final = frozenset({502, 503, 504})
"""Statuses on which every sender tries again."""

UNBEGUN: Final = frozenset({"tunnel-refused", "no-connector"})
"""How a push ends of which surely nothing reached a target."""

MAX_TRIES: Final = 3
"""Of the relay, for one try of a sender (docs/design.md)."""

REPLAY: Final = 64 * 1024
"""Bytes of a body up to which the relay keeps it for another try."""


@dataclass(slots=True)
class Ledger:
    """What was written down in one run. `tries_by_relay` counts the relay's own tries of a sender's try, where its
    access line tells."""

    tries: list[Try] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    tries_by_relay: dict[str, int] = field(default_factory=dict)
    unsettled: list[str] = field(default_factory=list)

    @property
    def pushes(self) -> set[str]:
        return {one.push for one in self.tries}

    @property
    def acknowledged(self) -> set[str]:
        return {one.push for one in self.tries if one.is_acknowledged}

    @property
    def delivered(self) -> set[str]:
        """What arrived whole."""
        return {one.push for one in self.arrivals if one.at}

    @property
    def lost(self) -> set[str]:
        return self.acknowledged - self.delivered

    @property
    def duplicates(self) -> int:
        """Arrivals beyond the first of a push."""
        return sum(1 for one in self.arrivals if one.at) - len(self.delivered)

    @property
    def failures(self) -> list[Try]:
        return [one for one in self.tries if not one.is_acknowledged]

    def reasons(self) -> dict[str, int]:
        """Of the tries that failed."""
        return dict(Counter(one.reason for one in self.failures))

    def first_acknowledged(self, tenant: str, after: float) -> float | None:
        """When a push of the tenant was first acknowledged after that moment."""
        return min(
            (one.ended for one in self.tries if one.tenant == tenant and one.is_acknowledged and one.ended > after),
            default=None,
        )

    def recovery(self, tenants: Iterable[str], window: Window) -> float | None:
        """Seconds from the fault's end until pushes of all these tenants flowed; None if some never did."""
        firsts = [self.first_acknowledged(tenant, window.ended) for tenant in tenants]
        known = [first for first in firsts if first is not None]
        return max((first - window.ended for first in known), default=0.0) if len(known) == len(firsts) else None

    def slowest(self, window: Window) -> float:
        """The longest that a try which overlapped the fault took from its begin on, in seconds."""
        return max(
            (one.ended - max(one.began, window.began) for one in self.tries if window.overlaps(one.began, one.ended)),
            default=0.0,
        )

    def findings(self, terms: Terms, window: Window, timeouts: Mapping[str, float]) -> list[str]:
        """All that does not fit. `timeouts` are the routes', in seconds."""
        return [
            *self._unbalanced(),
            *self._arrived_twice(),
            *self._crossed(),
            *self._late(terms, window, timeouts),
            *self._failed(terms, window),
        ]

    # --- the balance

    def _unbalanced(self) -> list[str]:
        known = {one.id for one in self.tries}
        whole = {one.try_id for one in self.arrivals if one.at}
        found = [f"{push}: acknowledged, and never delivered" for push in sorted(self.lost)]
        found += [
            f"{one.id}: this try was acknowledged, and it was not this one that arrived"
            for one in self.tries
            if one.is_acknowledged and one.id not in whole and one.push not in self.lost
        ]
        found += [f"{one.try_id}: arrived, and nobody sent it" for one in self.arrivals if one.try_id not in known]
        found += [f"{one.try_id}: its body is not the one that was sent" for one in self.arrivals if not one.is_intact]
        found += [f"{push}: never settled" for push in self.unsettled]
        return found

    def _arrived_twice(self) -> list[str]:
        """A sender's try arrives once. Where the route says idempotent, as often as the relay tried."""
        routes = {one.id: one.route for one in self.tries}
        arrivals = Counter(one.try_id for one in self.arrivals)
        found = []
        for try_id, count in arrivals.items():
            allowed = self.tries_by_relay.get(try_id, MAX_TRIES) if routes.get(try_id) == IDEMPOTENT else 1
            if count > allowed:
                found.append(f"{try_id}: arrived {count} times, after {allowed} tries of the relay")
        return found

    def _crossed(self) -> list[str]:
        return [
            f"{one.try_id}: a push of {one.tenant} arrived at {one.at_tenant}"
            for one in self.arrivals
            if one.tenant != one.at_tenant
        ]

    def _late(self, terms: Terms, window: Window, timeouts: Mapping[str, float]) -> list[str]:
        """Nothing begins at a target after its sender was answered, or after its deadline.

        The deadline counts from when the push reached the relay: at most as late as the fault kept it from there.
        """
        tries = {one.id: one for one in self.tries}
        first_began: dict[str, float] = {}
        for arrival in self.arrivals:
            first_began[arrival.try_id] = min(arrival.begun, first_began.get(arrival.try_id, arrival.begun))
        found = []
        for arrival in self.arrivals:
            one = tries.get(arrival.try_id)
            if one is None:
                continue
            until = one.began + timeouts[one.route] + terms.delay + SLACK
            if terms.holds_up and window.overlaps(one.began, until):
                until += window.ended - window.began
            if one.status:
                until = min(until, one.ended + terms.delay + SLACK)
            if arrival.begun > until:
                found.append(
                    f"{one.id}: began at the target {arrival.begun - one.began:.2f} s after it was sent, "
                    f"{arrival.begun - until:.2f} s too late"
                )
        return found

    # --- what may fail

    def _failed(self, terms: Terms, window: Window) -> list[str]:
        return [
            f"{one.id} ({one.route}, {one.size} bytes): {text}"
            for one in self.failures
            if (text := self._wrong(one, terms, window)) is not None
        ]

    def _wrong(self, one: Try, terms: Terms, window: Window) -> str | None:
        """Why this failure should not have been, or not like this; None when it is within the terms."""
        since = one.began - window.began
        if one.status and not _is_honest(one):
            return f"answered {one.status} {one.code!r}, which no sender can be told"
        if not window.widened(terms.aftermath).overlaps(one.began, one.ended):
            return f"failed by {one.reason} without a fault, {since:+.2f} s after its begin"
        if one.tenant not in terms.hurts:
            return f"failed by {one.reason}, {since:+.2f} s after the fault's begin, which was none of its tenant's"
        if terms.spares_others and _may_be_repeated(one):
            return f"failed by {one.reason}, {since:+.2f} s after the fault's begin, and could have been tried again"
        if not one.status and not terms.is_silent:
            return f"got no answer ({one.cause}), {since:+.2f} s after the fault's begin"
        if one.status and terms.codes and one.code not in terms.codes:
            return f"failed by {one.reason}, {since:+.2f} s after the fault's begin; expected {sorted(terms.codes)}"
        return None


def _may_be_repeated(one: Try) -> bool:
    """Whether the relay may try it again: it has all of it, and either nothing of it was begun or that does no harm."""
    return one.size <= REPLAY and (one.route == IDEMPOTENT or one.code in UNBEGUN)


def _is_honest(one: Try) -> bool:
    fault = FAULTS.get(one.code)
    return one.is_honest and fault is not None and fault.status == one.status and one.status in AGAIN
