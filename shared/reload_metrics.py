"""What the last reload came to, as metrics, the same on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shared.metrics import Metrics
    from shared.outcome import Outcome


class Reloads(Protocol):
    """What is asked of a reloader: what the last reload came to, None before the first, and since when the config in
    force holds, Unix time."""

    @property
    def last(self) -> Outcome | None: ...
    @property
    def taken_at(self) -> float: ...


def add_reload_gauges(metrics: Metrics, program: str, reloads: Reloads) -> None:
    """`program` is the prefix of the names."""
    metrics.gauge(
        f"{program}_config_reload_success", "0 after a reload that was refused: the old config holds.",
        lambda: float(reloads.last is None or reloads.last.is_taken),
    )  # fmt: skip
    metrics.gauge(
        f"{program}_config_reload_timestamp_seconds", "Since when the config in force holds, Unix time.",
        lambda: reloads.taken_at,
    )  # fmt: skip
