"""The ledger: which push was sent, acknowledged, delivered, refused; and whether everybody told the truth.

A push is *lost* if its sender saw a 2xx but the target never had it. It is *refused* if its sender gave up on it; that
is honest if each attempt ended with an answer that names the error (status and `Qanat-Error`), or with a broken
connection.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any


def percentile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile; 0.0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


class Ledger:
    """Takes events in any order and can say at any time how things stand."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.delivered: set[str] = set()
        self.given_up: set[str] = set()
        self.series = 0
        self.repeated = 0
        self.dishonest: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.acknowledged_at: deque[tuple[float, str, float]] = deque(maxlen=20_000)

    def record(self, event: dict[str, Any]) -> None:
        """Takes one event (`demo.events`); unknown ones are ignored."""
        push = str(event.get("id", ""))
        match event["event"]:
            case "sent":
                self.sent.add(push)
            case "attempt":
                self._attempt(push, int(event["status"]), str(event.get("code") or ""))
            case "acknowledged":
                self.acknowledged.add(push)
                self.latencies_ms.append(float(event["ms"]))
                self.acknowledged_at.append((float(event["at"]), push, float(event["ms"])))
            case "refused":
                self.given_up.add(push)
            case "delivered":
                self.repeated += push in self.delivered
                self.delivered.add(push)
                self.series += int(event["series"])

    def _attempt(self, push: str, status: int, code: str) -> None:
        self.reasons[f"{status} {code}".strip() if status else code] += 1
        if status and not code:
            self.dishonest.append(f"{push}: status {status} without Qanat-Error")

    @property
    def lost(self) -> set[str]:
        return self.acknowledged - self.delivered

    @property
    def refused(self) -> set[str]:
        return self.given_up - self.acknowledged

    def faults(self) -> list[str]:
        """Why this run is no success; empty when it is one."""
        found = [f"{push}: acknowledged, but never delivered" for push in sorted(self.lost)]
        found += self.dishonest
        found += [f"{push}: neither acknowledged nor refused" for push in sorted(self.sent - self._settled())]
        found += [f"{push}: delivered, but nobody sent it" for push in sorted(self.delivered - self.sent)]
        return found

    def _settled(self) -> set[str]:
        return self.acknowledged | self.given_up

    def first_acknowledged_after(self, moment: float) -> float | None:
        """When the first push was acknowledged after `moment` (monotonic clock); None if none was."""
        return min((at for at, _, _ in self.acknowledged_at if at > moment), default=None)

    def recent(self, since: float) -> list[tuple[str, float]]:
        """(push, latency in ms) of what was acknowledged since then."""
        return [(push, ms) for at, push, ms in self.acknowledged_at if at >= since]

    def last_line(self, recovery_s: float) -> str:
        """The demo's last line; its form is a promise."""
        return (
            f"demo: sent={len(self.sent)} acknowledged={len(self.acknowledged)} delivered={len(self.delivered)} "
            f"lost={len(self.lost)} refused={len(self.refused)} p50_ms={percentile(self.latencies_ms, 0.5):.2f} "
            f"p99_ms={percentile(self.latencies_ms, 0.99):.2f} recovery_s={recovery_s:.2f}"
        )
