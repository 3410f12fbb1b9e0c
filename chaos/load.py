"""How much senders push in a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """Of each tenant: pushes a second, bytes of the largest body, and seconds for which an idle connection is kept."""

    rate: float = 40.0
    largest: int = 1_000_000
    idle: float = 30.0
