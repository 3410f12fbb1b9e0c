"""What a fault is played on: the site, and the marks of when it began and ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from chaos.site import Site
from chaos.terms import Window


@dataclass(slots=True)
class Stage:
    """One run, while its fault is played. Times are monotonic seconds. `after` ends when all has settled."""

    site: Site
    began: float = 0.0
    ended: float = 0.0
    notes: list[tuple[float, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    after: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def begins(self, text: str) -> None:
        """The fault begins now."""
        self.note(text)
        self.began = self.notes[-1][0]

    def ends(self, text: str, at: float | None = None) -> None:
        """The fault ended now, or at that moment."""
        self.note(text)
        self.ended = self.notes[-1][0] if at is None else at

    def note(self, text: str) -> None:
        """Something that the report should show."""
        self.notes.append((time.monotonic(), text))

    def finds(self, text: str) -> None:
        """Something is not as it should be."""
        self.findings.append(text)

    async def lasts(self, seconds: float) -> None:
        """Time passes."""
        await asyncio.sleep(seconds)

    @property
    def window(self) -> Window:
        return Window(self.began, self.ended)
