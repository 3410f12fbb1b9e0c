"""What a delivery needs of the dispatcher: its records, its clock, and its watch for gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector_agent.delivery import Delivery
    from connector_agent.targets import Target
    from shared.http.push_head import PushHead


class Recorder(Protocol):
    """Takes note of deliveries that are over, and knows the time, and when the process was away."""

    @property
    def now(self) -> Callable[[], float]:
        """The loop's time, as finely as it can be told."""

    def look(self, now: float) -> None:
        """Before a push that had to wait is written: if the loop was away until just now, `on_gap` all that wait."""

    def judge(self, push: PushHead, target: Target) -> str | None:
        """Why a push that was given to `target`, and became a WebSocket, may not go on by the targets of now."""

    def record(self, delivery: Delivery, now: float) -> None:
        """Called once for each."""
