"""What a push adds to: a counter, a histogram. `shared.metrics` makes them, and shows them when somebody scrapes."""

from __future__ import annotations

from bisect import bisect_left


class Counter:
    """One counter: add to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class HistogramCell:
    """One histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation. A bucket holds what is at most its bound (le)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
