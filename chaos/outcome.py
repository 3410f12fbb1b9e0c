"""What came of one run."""

from __future__ import annotations

from dataclasses import dataclass, field

from chaos.ledger import Ledger
from chaos.schedule import Plan
from chaos.stage import Stage
from chaos.terms import Terms


@dataclass(slots=True)
class Outcome:
    """One run in figures, JSON-able by `dataclasses.asdict`. Seconds; times in lists count from the fault's begin.

    `recovery` is from the fault's end to the first acknowledged push of all tenants that it hurt, None when none came;
    `slowest` the longest that a try took from the fault's begin on.
    """

    number: int
    fault: str
    text: str
    findings: list[str] = field(default_factory=list)
    pushes: int = 0
    tries: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    recovery: float | None = None
    recovery_bound: float = 0.0
    slowest: float = 0.0
    slowest_bound: float | None = None
    lasted: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    grown_mib: dict[str, float] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.findings


def outcome_of(plan: Plan, stage: Stage, ledger: Ledger, terms: Terms) -> Outcome:
    """The figures of a run, without findings."""
    window = stage.window

    def since(at: float) -> float:
        return round(at - window.began, 3)

    recovery = ledger.recovery(sorted(terms.hurts), window) if terms.hurts else 0.0
    return Outcome(
        plan.number,
        plan.fault.name,
        plan.text,
        pushes=len(ledger.pushes),
        tries=len(ledger.tries),
        acknowledged=len(ledger.acknowledged),
        lost=len(ledger.lost),
        duplicates=ledger.duplicates,
        failed=ledger.reasons(),
        recovery=None if recovery is None else round(recovery, 3),
        recovery_bound=terms.recovery,
        slowest=round(ledger.slowest(window), 3),
        slowest_bound=terms.slowest,
        lasted=round(window.ended - window.began, 3),
        figures=dict(stage.figures),
        notes=[(since(at), text) for at, text in stage.notes],
        acknowledged_at=sorted(since(one.ended) for one in ledger.tries if one.is_acknowledged),
        failed_at=sorted(since(one.ended) for one in ledger.failures),
    )
