"""One relay's status out of its workers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Row = dict[str, Any]

_SUMS: Final = frozenset({
    "tunnels", "in_flight", "pushes", "unanswered", "open", "connections", "bytes_in", "bytes_out", "delivered",
    "retries",
})  # fmt: skip
"""Figures of a row that are added up; tables of figures (`answers`, `faults`) are, too."""


def merge_status(shown: Mapping[int, Row], workers: int, upgrade: Row | None = None, health: Row | None = None) -> Row:
    """The status of the first worker, with what the others have on top. `shown` is by number and holds number 0.

    `upgrade` is how far the last one is, `health` what is said of all of them.
    """
    first = dict(shown[0])
    others = [status for number, status in sorted(shown.items()) if number != 0]
    for number, status in shown.items():
        _mark(status, number)
    first["workers"] = {"count": workers, "answering": len(shown), "upgrade": upgrade, **(health or {})}
    first["in_flight"] = sum(status["in_flight"] for status in shown.values())
    first["memory"] = {name: sum(status["memory"][name] for status in shown.values()) for name in first["memory"]}
    first["probes"] = {name: sum(status["probes"][name] for status in shown.values()) for name in first["probes"]}
    first["listeners"] = _rows(first["listeners"], [one["listeners"] for one in others], ("kind", "listen"))
    first["tenants"] = _tenants(first["tenants"], [one["tenants"] for one in others])
    for name in ("routes", "tcp_routes"):
        rows = _rows(first[name], [one[name] for one in others], ("tenant", "route"))
        first[name] = rows
    first["senders"] = _rows(first["senders"], [one["senders"] for one in others], ("tenant", "sender"))
    return first


def _mark(status: Row, number: int) -> None:
    """Say of each tunnel at which worker it is."""
    for tenant in status["tenants"]:
        for location in tenant["locations"]:
            for connector in location["connectors"]:
                for tunnel in connector["tunnels"]:
                    tunnel["worker"] = number


def _rows(first: Sequence[Row], others: Sequence[Sequence[Row]], key: tuple[str, ...]) -> list[Row]:
    """Rows of the same key as one."""
    merged = {tuple(row[name] for name in key): dict(row) for row in first}
    for rows in others:
        for row in rows:
            known = merged.get(tuple(row[name] for name in key))
            if known is not None:
                _add(known, row)
    return list(merged.values())


def _add(known: Row, row: Row) -> None:
    for name, value in row.items():
        if name in _SUMS:
            known[name] = known.get(name, 0) + value
        elif name in {"answers", "faults"}:
            table = dict(known[name])
            for entry, count in value.items():
                table[entry] = table.get(entry, 0) + count
            known[name] = table
        elif name == "state" and _RANKS.get(value, 0) > _RANKS.get(known[name], 0):
            known |= {"state": value, "why": row["why"], "age_s": row["age_s"]}
        elif name == "silent_s":
            known[name] = min(known[name], value)
        elif name == "last_delivered" and value is not None:
            known[name] = max(known[name] or "", value)


_RANKS: Final = {"red": 1, "unknown": 2, "green": 3}
"""A route is as well as it is where it is best: pushes cross to there."""


def _tenants(first: Sequence[Row], others: Sequence[Sequence[Row]]) -> list[Row]:
    merged = [dict(tenant) for tenant in first]
    for tenant in merged:
        theirs = [one for rows in others for one in rows if one["tenant"] == tenant["tenant"]]
        tenant["locations"] = [
            {
                **location,
                "connectors": _connectors(
                    [
                        row
                        for one in (tenant, *theirs)
                        for place in one["locations"]
                        if place["location"] == location["location"]
                        for row in place["connectors"]
                    ]
                ),
            }
            for location in tenant["locations"]
        ]
    return merged


def _newest(targets: Sequence[Row]) -> list[Row]:
    """Of each target what was found out last: each worker asks for itself."""
    merged: dict[str, Row] = {}
    for row in targets:
        known = merged.get(row["target"])
        if known is None or _age(row) < _age(known):
            merged[row["target"]] = row
    return [merged[name] for name in sorted(merged)]


def _age(row: Row) -> float:
    return float("inf") if row["age_s"] is None else float(row["age_s"])


def _connectors(rows: Sequence[Row]) -> list[Row]:
    merged: dict[str, Row] = {}
    for row in rows:
        known = merged.get(row["connector"])
        if known is None:
            merged[row["connector"]] = {**row, "tunnels": list(row["tunnels"])}
            continue
        known["standby"] = known["standby"] or row["standby"]
        known["targets"] = _newest([*known["targets"], *row["targets"]])
        known["tunnels"] += row["tunnels"]
        known["not_allowed"] = sorted({*known["not_allowed"], *row["not_allowed"]})
    return [merged[name] for name in sorted(merged)]
