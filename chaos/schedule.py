"""Which faults come in which order, with which parameters: all of it follows from the seed.

Each run has a source of its own, from the seed and its number, so that one of them can be played again alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.fault import Fault, Parameters


@dataclass(frozen=True, slots=True)
class Plan:
    """One run to come: `warm_up` seconds of pushes, then the fault."""

    number: int
    fault: Fault
    parameters: Parameters
    warm_up: float

    @property
    def text(self) -> str:
        drawn = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"run {self.number}: {self.fault.name} {drawn}".rstrip()


def draw(seed: int, number: int, fault: Fault) -> Plan:
    """What is random in one run."""
    source = random.Random(f"{seed} {number} {fault.name}")
    return Plan(number, fault, fault.draw(source), round(source.uniform(0.2, 0.8), 2))


def schedule(seed: int, faults: Sequence[Fault]) -> Iterator[Plan]:
    """Runs without an end: in each round every fault once for each whole of its weight, in a random order.

    A fault of weight 0.25 comes in one round of four.
    """
    shares: Mapping[str, float] = {fault.name: fault.weight for fault in faults}
    owed = dict.fromkeys(shares, 0.0)
    number, turn = 0, 0
    while True:
        source = random.Random(f"{seed} round {turn}")
        due: list[Fault] = []
        for fault in faults:
            owed[fault.name] += shares[fault.name] if turn else 1.0
            while owed[fault.name] >= 1.0:
                owed[fault.name] -= 1.0
                due.append(fault)
        source.shuffle(due)
        for fault in due:
            yield draw(seed, number, fault)
            number += 1
        turn += 1
