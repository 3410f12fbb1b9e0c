"""One target behind one connector: which sessions expose it, what its last probe found, and what pushes tell of it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from shared.probe import NONE, Verdict

if TYPE_CHECKING:
    from cloud_relay.probing.doubt import Doubt
    from cloud_relay.session import Key, Session

FAILURES: Final = 2
"""Probes in a row that must fail before a target that was well is not: one may be an accident."""


class TargetState(enum.StrEnum):
    """What is known of a target. UNKNOWN: nothing, and pushes go there as to one that is well."""

    GREEN = "green"
    RED = "red"
    UNKNOWN = "unknown"


_GREEN, _RED, _UNKNOWN = TargetState.GREEN, TargetState.RED, TargetState.UNKNOWN


class TargetRecord:
    """`key` is the registry's, `connector` and `target` are names. All times are the loop's; 0.0 means never.

    `found_at` is when the connector found out what `verdict` says; `due` when it is asked next; `asked_at` when it was
    last. `is_asked`: an answer is under way. `took_in_all`: seconds from the question to the answer, tunnel included.
    `unanswered_by` is why the last question got no answer, "" where it got one.
    """

    __slots__ = (
        "_failures", "asked_at", "connector", "doubt", "due", "found_at", "gone_at", "is_asked", "is_ill",
        "is_passed_over", "key", "sessions", "target", "took_in_all", "unanswered_by", "verdict",
    )  # fmt: skip

    def __init__(self, key: Key, connector: str) -> None:
        self.key = key
        self.connector = connector
        self.target = key[2].rpartition(":")[2]
        self.sessions: list[Session] = []
        self.verdict: Verdict | None = None
        self.found_at = self.asked_at = self.due = self.gone_at = 0.0
        self.took_in_all = 0.0
        self.unanswered_by = ""
        self.is_asked = False
        self.is_ill = False
        self.is_passed_over = False
        self.doubt: Doubt | None = None
        self._failures = 0

    @property
    def is_tripped(self) -> bool:
        """Whether pushes keep failing there."""
        return self.doubt is not None and self.doubt.is_tripped

    @property
    def is_probed(self) -> bool:
        """Whether a probe can tell something: it answered, and not that there is nothing to probe."""
        return self.verdict is not None and self.verdict.code != NONE

    @property
    def state(self) -> TargetState:
        """What is known."""
        if self.is_ill or self.is_tripped:
            return _RED
        return _GREEN if self.is_probed else _UNKNOWN

    @property
    def is_calm(self) -> bool:
        """Whether nothing speaks against it: there is no hurry to ask again."""
        return self.verdict is not None and self.verdict.code in ("", NONE) and not self.is_tripped

    @property
    def why(self) -> str:
        """The code of what is wrong; for UNKNOWN a word that says why; "" where all is well."""
        if self.doubt is not None and self.doubt.is_tripped:
            return self.doubt.code
        verdict = self.verdict
        if verdict is None:
            answers = any(session.answers_probes for session in self.sessions)
            return "not-probed-yet" if answers else "connector-cannot-probe"
        if verdict.code == NONE:
            return "probe-none"
        return verdict.code if self.is_ill else ""

    def note(self, verdict: Verdict, now: float) -> None:
        """A probe was answered."""
        self.found_at = now - verdict.age
        self.unanswered_by = ""
        was_well = self.is_probed and not self.is_ill
        self.verdict = verdict
        if verdict.code in ("", NONE):
            self._failures = 0
            self.is_ill = False
        else:
            self._failures += 1
            self.is_ill = self.is_ill or not was_well or self._failures >= FAILURES

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """(tenant, location, connector, target) for metrics."""
        return (*self.key[:2], self.connector, self.target)

    @property
    def place(self) -> str:
        """The same for the log: "acme/walldorf/agent-1/frun"."""
        return "/".join(self.labels)

    def age(self, now: float) -> float | None:
        """Seconds since it was found out; None where it never was."""
        return max(now - self.found_at, 0.0) if self.verdict is not None else None

    def __repr__(self) -> str:
        return f"<TargetRecord {'/'.join(self.key)} at {self.connector}: {self.state} {self.why}>"
