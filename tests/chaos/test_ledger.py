"""The ledger finds each kind of lie: what was lost, came twice, crossed, was late, or failed without a cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.ledger import MAX_TRIES, SLACK, Ledger
from chaos.pushes import IDEMPOTENT, PLAIN, Arrival, Try
from chaos.terms import Terms, Window

TIMEOUTS = {PLAIN: 8.0, IDEMPOTENT: 8.0}
WINDOW = Window(100.0, 102.0)
TERMS = Terms(hurts=frozenset({"acme"}), spares_others=True, codes=frozenset({"tunnel-lost"}))

GOOD = Try("acme", PLAIN, "acme.r0.1", "acme.r0.1.0", 300, 99.0, 99.1, 200)
ARRIVED = Arrival("acme", "acme", "acme.r0.1", "acme.r0.1.0", 99.04, 99.05, True, "c1", "id")
AMBIGUOUS = replace(GOOD, id="acme.r0.1.x", began=99.9, ended=100.1, status=502, code="tunnel-lost")


def findings(tries: list[Try], arrivals: list[Arrival], terms: Terms = TERMS, **more: object) -> list[str]:
    return Ledger(tries, arrivals, **more).findings(terms, WINDOW, TIMEOUTS)  # type: ignore[arg-type]


def test_what_was_acknowledged_and_arrived_balances():
    assert findings([GOOD], [ARRIVED]) == []


def test_a_failed_try_within_the_terms_and_a_good_one_balance():
    later = replace(GOOD, id="acme.r0.1.1", began=100.2, ended=100.3)
    both = [ARRIVED, replace(ARRIVED, try_id="acme.r0.1.x", begun=99.95, at=99.96)]
    ledger = Ledger([AMBIGUOUS, replace(later)], [both[1], replace(ARRIVED, try_id=later.id, begun=100.2, at=100.2)])
    assert ledger.findings(TERMS, WINDOW, TIMEOUTS) == []
    assert ledger.duplicates == 1
    assert ledger.reasons() == {"tunnel-lost": 1}


@pytest.mark.parametrize(
    ("tries", "arrivals", "text"),
    [
        ([GOOD], [], "never delivered"),
        ([GOOD], [replace(ARRIVED, at=0.0)], "never delivered"),
        ([GOOD], [replace(ARRIVED, try_id="acme.r0.1.9")], "not this one that arrived"),
        ([], [ARRIVED], "nobody sent it"),
        ([GOOD], [replace(ARRIVED, is_intact=False)], "not the one that was sent"),
        ([GOOD], [ARRIVED, replace(ARRIVED, connector="c2")], "arrived 2 times, after 1"),
        ([GOOD], [replace(ARRIVED, at_tenant="globex")], "a push of acme arrived at globex"),
        ([replace(GOOD, ended=120.0)], [replace(ARRIVED, begun=107.5, at=107.6)], "too late"),
        ([GOOD], [replace(ARRIVED, begun=99.1 + SLACK + 0.1)], "too late"),
    ],
)
def test_each_lie_is_found(tries, arrivals, text):
    assert any(text in finding for finding in findings(tries, arrivals)), findings(tries, arrivals)


def test_what_the_fault_held_up_may_come_as_much_later():
    held = [replace(GOOD, began=101.0, ended=111.0)]
    late = [replace(ARRIVED, begun=110.5, at=110.6)]
    assert findings(held, late)
    assert not findings(held, late, replace(TERMS, holds_up=True))


def test_an_idempotent_try_arrives_as_often_as_the_relay_tried():
    one = replace(GOOD, route=IDEMPOTENT)
    twice = [ARRIVED, replace(ARRIVED, connector="c2", begun=99.06, at=99.07)]
    assert not findings([one], twice)
    assert not findings([one], twice, tries_by_relay={one.id: 2})
    assert findings([one], twice, tries_by_relay={one.id: 1})
    assert findings([one], twice * MAX_TRIES)


@pytest.mark.parametrize(
    ("failed", "terms", "text"),
    [
        (replace(AMBIGUOUS, began=90.0, ended=90.1), TERMS, "without a fault"),
        (replace(AMBIGUOUS, began=103.5, ended=104.0), TERMS, "without a fault"),
        (replace(AMBIGUOUS, tenant="globex"), TERMS, "none of its tenant's"),
        (replace(AMBIGUOUS, route=IDEMPOTENT), TERMS, "could have been tried again"),
        (replace(AMBIGUOUS, status=0, code="", cause="ServerDisconnectedError"), TERMS, "no answer"),
        (replace(AMBIGUOUS, status=503, code="tunnel-refused"), TERMS, "could have been tried again"),
        (replace(AMBIGUOUS, status=504, code="deadline-exceeded"), TERMS, "expected"),
        (replace(AMBIGUOUS, status=404, code="no-such-route"), TERMS, "no sender can be told"),
        (replace(AMBIGUOUS, status=503), TERMS, "no sender can be told"),
        (replace(AMBIGUOUS, code=""), TERMS, "no sender can be told"),
        (replace(AMBIGUOUS, is_honest=False), TERMS, "no sender can be told"),
    ],
)
def test_a_failure_beyond_the_terms_is_found(failed, terms, text):
    found = findings([GOOD, failed], [ARRIVED], terms)
    assert len(found) == 1
    assert text in found[0]


def test_a_large_idempotent_push_cannot_be_tried_again():
    assert not findings([GOOD, replace(AMBIGUOUS, route=IDEMPOTENT, size=100_000)], [ARRIVED])


def test_silence_where_the_relay_is_away():
    silent = replace(AMBIGUOUS, status=0, code="", cause="ServerDisconnectedError")
    assert not findings([GOOD, silent], [ARRIVED], replace(TERMS, is_silent=True))


def test_recovery_is_that_of_the_last_tenant():
    other = replace(GOOD, tenant="globex", began=102.0, ended=103.0)
    ledger = Ledger([replace(GOOD, began=102.0, ended=102.4), other], [])
    assert ledger.recovery(["acme"], WINDOW) == pytest.approx(0.4)
    assert ledger.recovery(["acme", "globex"], WINDOW) == pytest.approx(1.0)
    assert Ledger([GOOD], []).recovery(["acme"], WINDOW) is None
    assert ledger.recovery([], WINDOW) == 0.0


def test_the_slowest_try_is_one_of_the_faults_and_counts_from_its_begin():
    before, during = replace(GOOD, began=90.0, ended=95.0), replace(GOOD, began=99.0, ended=101.5)
    assert Ledger([before, during], []).slowest(WINDOW) == pytest.approx(1.5)
