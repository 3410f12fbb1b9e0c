"""What a measure yields, whoever generated the load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of ordered values; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(fraction * len(ordered)) - 1))]


@dataclass(slots=True)
class Load:
    """What a load generator saw. Latencies in ms; `failed` counts what got no 2xx, and `failures` each kind of that."""

    seconds: float
    pushes: int
    failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    failures: dict[str, int] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_latencies(
        cls, latencies_s: list[float], seconds: float, failures: dict[str, int], extra: dict[str, float] | None = None
    ) -> Load:
        """From the latency of each push that was acknowledged, in seconds."""
        latencies_s.sort()
        p50, p90, p99, p999 = (percentile(latencies_s, fraction) * 1e3 for fraction in (0.5, 0.9, 0.99, 0.999))
        failed = sum(failures.values())
        return cls(seconds, len(latencies_s), failed, p50, p90, p99, p999, failures, extra or {})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
