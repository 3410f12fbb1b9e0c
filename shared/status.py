"""What `status` says of either program: the process itself, and times as people and scripts read them."""

from __future__ import annotations

import asyncio
import enum
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Protocol

from shared.outcome import Outcome
from shared.protocol import MemoryBudget


class ProcessView(Protocol):
    """What a status needs of a program. `started_at` is Unix time."""

    path: Path
    started_at: float
    budget: MemoryBudget

    @property
    def state(self) -> enum.Enum: ...
    @property
    def last_reload(self) -> Outcome | None: ...


def version() -> str:
    """Of the installed distribution."""
    try:
        return installed_version("qanat")
    except PackageNotFoundError:
        return "unknown"


def timestamp(unix: float) -> str | None:
    """RFC 3339 in UTC; None for 0.0, which stands for never."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if unix else None


def process_view(app: ProcessView) -> dict[str, Any]:
    """Version, state and age of the process, how many tasks it runs, its config, what became of the last reload,
    and the bytes of pushes under way with how many may be."""
    reload = app.last_reload
    return {
        "version": version(),
        "state": app.state.value,
        "started_at": timestamp(app.started_at),
        "uptime_s": round(time.time() - app.started_at, 1),
        "tasks": len(asyncio.all_tasks()),
        "config": str(app.path),
        "memory": {"used": app.budget.used, "budget": app.budget.limit, "victims": app.budget.victims},
        "reload": None
        if reload is None
        else {"at": timestamp(reload.at), "taken": reload.is_taken, "lines": list(reload.lines)},
    }


def answers_view(by_class: list[int]) -> dict[str, int]:
    """Answers by the class of their status, {"2xx": 5}; `by_class[n]` counts those of n00 to n99."""
    return {f"{status}xx": count for status, count in enumerate(by_class) if status and count}
