"""The ledger: who was told what, and what became of it."""

from __future__ import annotations

from demo.course import Progress
from demo.ledger import Ledger, percentile


def ledger_of(*events: dict[str, object]) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger.record(dict(event))
    return ledger


def sent(push: str) -> dict[str, object]:
    return {"event": "sent", "id": push}


def acknowledged(push: str, at: float = 1.0, ms: float = 2.0) -> dict[str, object]:
    return {"event": "acknowledged", "id": push, "ms": ms, "at": at}


def delivered(push: str) -> dict[str, object]:
    return {"event": "delivered", "id": push, "kind": "otlp", "series": 3}


def attempt(push: str, status: int, code: str) -> dict[str, object]:
    return {"event": "attempt", "id": push, "status": status, "code": code}


def refused(push: str) -> dict[str, object]:
    return {"event": "refused", "id": push}


def test_all_is_well_when_what_was_acknowledged_arrived() -> None:
    ledger = ledger_of(sent("a/1"), delivered("a/1"), acknowledged("a/1"))
    assert ledger.faults() == []
    assert ledger.last_line(0.25) == (
        "demo: sent=1 acknowledged=1 delivered=1 lost=0 refused=0 p50_ms=2.00 p99_ms=2.00 recovery_s=0.25"
    )


def test_a_lost_push_is_a_fault() -> None:
    ledger = ledger_of(sent("a/1"), acknowledged("a/1"))
    assert ledger.lost == {"a/1"}
    assert ledger.faults() == ["a/1: acknowledged, but never delivered"]


def test_delivered_before_or_after_makes_no_difference() -> None:
    assert ledger_of(sent("a/1"), acknowledged("a/1"), delivered("a/1")).faults() == []


def test_an_honest_refusal_is_none() -> None:
    ledger = ledger_of(
        sent("a/1"), attempt("a/1", 503, "no-connector"), refused("a/1"),
        sent("a/2"), attempt("a/2", 0, "ConnectionError"), refused("a/2"),
        sent("a/3"), delivered("a/3"), acknowledged("a/3"),
    )  # fmt: skip
    assert ledger.faults() == []
    assert len(ledger.refused) == 2
    assert ledger.reasons == {"503 no-connector": 1, "ConnectionError": 1}


def test_an_error_that_names_nobody_is_a_fault() -> None:
    ledger = ledger_of(sent("a/1"), attempt("a/1", 500, ""), acknowledged("a/1"), delivered("a/1"))
    assert ledger.faults() == ["a/1: status 500 without Qanat-Error"]


def test_a_push_that_nobody_settled_is_a_fault() -> None:
    ledger = ledger_of(sent("a/1"), sent("a/2"), acknowledged("a/2"), delivered("a/2"))
    assert ledger.faults() == ["a/1: neither acknowledged nor refused"]


def test_a_push_that_nobody_sent_is_a_fault() -> None:
    ledger = ledger_of(sent("a/1"), acknowledged("a/1"), delivered("a/1"), delivered("b/9"))
    assert ledger.faults() == ["b/9: delivered, but nobody sent it"]


def test_a_sender_that_got_nothing_through_is_a_fault() -> None:
    progress = Progress(ledger_of(sent("prometheus-1/1"), acknowledged("prometheus-1/1"), delivered("prometheus-1/1")))
    assert "application-1: no push was acknowledged" in progress.faults()
    assert "prometheus-1: no push was acknowledged" not in progress.faults()
    assert any("started again" in fault for fault in progress.faults())


def test_a_repeated_delivery_counts_once() -> None:
    ledger = ledger_of(sent("a/1"), delivered("a/1"), delivered("a/1"), acknowledged("a/1"))
    assert (len(ledger.delivered), ledger.repeated) == (1, 1)


def test_recovery_looks_for_the_first_acknowledgement_after_a_moment() -> None:
    ledger = ledger_of(acknowledged("a/1", 1.0), acknowledged("a/3", 9.0), acknowledged("a/2", 7.0))
    assert ledger.first_acknowledged_after(5.0) == 7.0
    assert ledger.first_acknowledged_after(9.0) is None


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile([4, 1, 3, 2], 0.99) == 4
    assert percentile([], 0.5) == 0.0
