"""The same seed gives the same schedule, and one run of it can be drawn alone."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from chaos.faults import FAULTS
from chaos.schedule import draw, schedule

ALL = list(FAULTS.values())


def test_the_same_seed_gives_the_same_schedule():
    first, again = (list(islice(schedule(7, ALL), 50)) for _ in range(2))
    assert first == again
    assert first != list(islice(schedule(8, ALL), 50))


def test_a_run_can_be_drawn_alone():
    for plan in islice(schedule(7, ALL), 40):
        assert draw(7, plan.number, plan.fault) == plan


def test_parameters_differ_from_run_to_run():
    drawn = [plan.parameters["seconds"] for plan in islice(schedule(7, [FAULTS["kill-relay"]]), 20)]
    assert len(set(drawn)) > 10


def test_every_fault_comes_in_the_first_round_and_later_by_its_weight():
    first = [plan.fault.name for plan in islice(schedule(1, ALL), len(ALL))]
    assert sorted(first) == sorted(FAULTS)
    rounds = 40
    expected = {fault.name: 1 + fault.weight * (rounds - 1) for fault in ALL}
    counts = Counter(plan.fault.name for plan in islice(schedule(1, ALL), int(sum(expected.values()))))
    for name, count in expected.items():
        assert abs(counts[name] - count) <= 2, name
