"""What a status, a scrape and /readyz show of targets and of the routes that lead to them. Names and codes only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_relay.probing.record import TargetState

if TYPE_CHECKING:
    from cloud_relay.probing.book import HealthBook
    from cloud_relay.probing.record import TargetRecord
    from cloud_relay.registry import Registry
    from cloud_relay.session import Key

Values = dict[tuple[str, ...], float]

_GREEN, _RED, _UNKNOWN = TargetState.GREEN, TargetState.RED, TargetState.UNKNOWN


class RouteHealth(NamedTuple):
    """How a route is: `why` is a code of the catalogue (or, where it is unknown, a word), "" where it is green.

    `age` is how many seconds ago the target was looked at, None where it never was, or not by this process. `tunnels`:
    its own, by which a push could go now.
    """

    state: TargetState
    why: str
    age: float | None
    tunnels: int


def route_health(
    registry: Registry, book: HealthBook, key: Key, now: float, elsewhere: Sequence[tuple[str, str]] = ()
) -> RouteHealth:
    """Green if the target is well at one connector that is there, red if at none, or if there is none.

    `elsewhere`: the state and the why of those that are attached to other workers.
    """
    tunnels = registry.count(key)
    if not tunnels and not elsewhere:
        return RouteHealth(_RED, "no-connector", None, 0)
    records = [one for one in book.of_key(key) if any(session.link.can_open for session in one.sessions)]
    for state in (_GREEN, _UNKNOWN, _RED):
        found = [one for one in records if one.state is state]
        if found:
            newest = min(found, key=lambda one: _sortable(one.age(now)))
            return RouteHealth(state, newest.why, newest.age(now), tunnels)
        told = next((why for said, why in elsewhere if said == state.value), None)
        if told is not None:
            return RouteHealth(state, told, None, tunnels)
    return RouteHealth(_UNKNOWN, "not-probed-yet", None, tunnels)


def target_view(record: TargetRecord, now: float) -> dict[str, Any]:
    """One target behind one connector, JSON-able."""
    age, verdict, doubt = record.age(now), record.verdict, record.doubt
    return {
        "target": record.target,
        "state": record.state.value,
        "why": record.why or None,
        "age_s": _rounded(age),
        "took_ms": round(verdict.took * 1e3, 1) if verdict is not None else None,
        "path_ms": round(record.took_in_all * 1e3, 1) if verdict is not None else None,
        "status": (verdict.status or None) if verdict is not None else None,
        "unanswered": record.unanswered_by or None,
        "passed_over": record.is_passed_over,
        "taken_out_s": round(max(doubt.out_until - now, 0.0), 1) if doubt is not None and doubt.is_tripped else None,
    }


def connector_views(records: Iterable[TargetRecord], now: float) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """The same of all, by (tenant, location, connector)."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda one: one.target):
        found.setdefault((*record.key[:2], record.connector), []).append(target_view(record, now))
    return found


def measured(records: Iterable[TargetRecord], value: Callable[[TargetRecord], float | None]) -> Values:
    """One figure of each target of which it is known, by (tenant, location, connector, target)."""
    found = ((record.labels, value(record)) for record in records)
    return {labels: figure for labels, figure in found if figure is not None}


def totals(states: Iterable[TargetState]) -> dict[str, int]:
    """How many are green, red and unknown."""
    counts = dict.fromkeys((state.value for state in TargetState), 0)
    for state in states:
        counts[state.value] += 1
    return counts


def up(record: TargetRecord) -> float | None:
    """1 for green, 0 for red."""
    return None if record.state is _UNKNOWN else float(record.state is _GREEN)


def took(record: TargetRecord) -> float | None:
    """Seconds of the last probe at the connector."""
    return record.verdict.took if record.is_probed and record.verdict is not None else None


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 1)


def _sortable(age: float | None) -> float:
    return float("inf") if age is None else age
