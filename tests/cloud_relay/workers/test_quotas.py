"""One quota, several workers: it holds, and all of it can be had wherever the pushes are."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest

from cloud_relay.gates import Gate
from cloud_relay.limits import Limits
from cloud_relay.workers.lines import MAX_LINE, Lines, line
from cloud_relay.workers.quotas import Dividing, Obeying
from cloud_relay.workers.shares import INTERVAL

KEY = ("acme", "sender", "s4")


class Relay:
    """Workers whose messages take a while, and pushes that arrive at some of them. Time is what `run` makes of it."""

    def __init__(self, workers: int, *, rate: float = 0.0, burst: float = 0.0, in_flight: int = 0) -> None:
        self.now = 1000.0
        self.limits = [Limits(10_000, part=1.0 / workers) for _ in range(workers)]
        self._figures = (in_flight, rate, burst)
        self.gates = [self._gate(one, *self._figures) for one in self.limits]
        self.let_in = [0] * workers
        self.refused = [0] * workers
        self.mail: deque[tuple[int, int, Mapping[str, Any]]] = deque()
        self.first = Dividing(self.limits[0], workers, self._to_worker, lambda: self.now)
        self.others = {
            number: Obeying(self.limits[number], workers, self._to_first(number), lambda: self.now)
            for number in range(1, workers)
        }

    def _gate(self, limits: Limits, in_flight: int, rate: float, burst: float) -> Gate:
        return limits.gate(*KEY, in_flight, rate, burst)

    def _to_worker(self, worker: int, record: Mapping[str, Any]) -> None:
        self.mail.append((0, worker, record))

    def _to_first(self, worker: int) -> Any:
        return lambda record: self.mail.append((worker, 0, record))

    def push(self, worker: int) -> bool:
        gate = self.gates[worker]
        if gate.is_shut(self.now):
            self.refused[worker] += 1
            return False
        gate.enter(self.now)
        self.let_in[worker] += 1
        return True

    def interval(self) -> None:
        """Everybody says and divides once; the mail of before arrives."""
        mail, self.mail = self.mail, deque()
        for sender, receiver, record in mail:
            if receiver:
                self.others[receiver].take(tuple(record["share"]), record["of"])
            else:
                self.first.hear(sender, record)
        for one in self.others.values():
            one.say()
        self.first.divide()

    def first_dies(self) -> None:
        """And another one takes its place."""
        workers = len(self.limits)
        self.limits[0] = Limits(10_000, part=1.0 / workers)
        self.gates[0] = self._gate(self.limits[0], *self._figures)
        self.first = Dividing(self.limits[0], workers, self._to_worker, lambda: self.now)
        self.mail.clear()
        for number, one in self.others.items():
            one.begin()
            self.first.joined(number)

    def run(self, seconds: float, rates: Mapping[int, float], step: float = 0.005) -> None:
        """Pushes arrive at workers at these rates, and end at once."""
        owed = dict.fromkeys(rates, 0.0)
        ends, divides = self.now + seconds, self.now + INTERVAL
        while self.now < ends:
            self.now += step
            for worker, rate in rates.items():
                owed[worker] += rate * step
                while owed[worker] >= 1.0:
                    owed[worker] -= 1.0
                    if self.push(worker):
                        self.gates[worker].leave()
            if self.now >= divides:
                divides += INTERVAL
                self.interval()


@pytest.mark.parametrize("workers", [2, 4])
def test_all_of_a_rate_can_be_had_at_one_worker(workers: int) -> None:
    relay = Relay(workers, rate=200.0, burst=40.0)
    relay.run(2.0, {1: 400.0})
    before = relay.let_in[1]
    relay.run(5.0, {1: 400.0})
    assert relay.let_in[1] - before >= 0.95 * 5 * 200


@pytest.mark.parametrize("rates", [{0: 900.0}, {1: 900.0}, {0: 300.0, 1: 300.0, 2: 300.0}, {0: 50.0, 2: 900.0}])
def test_a_rate_holds_wherever_the_pushes_are(rates: dict[int, float]) -> None:
    relay = Relay(3, rate=200.0, burst=40.0)
    relay.run(6.0, rates)
    assert 0.93 * 6 * 200 <= sum(relay.let_in) <= 1.02 * (6 * 200 + 40)


def test_who_pushes_little_is_not_refused_for_one_that_floods() -> None:
    relay = Relay(2, rate=200.0, burst=40.0)
    relay.run(2.0, {0: 20.0, 1: 1000.0})
    refused = relay.refused[0]
    relay.run(5.0, {0: 20.0, 1: 1000.0})
    assert relay.refused[0] - refused <= 60


def test_pushes_in_flight_never_exceed_their_limit() -> None:
    relay = Relay(2, in_flight=8)
    held = [0, 0]
    for turn in range(90):
        worker = 1 if turn < 45 else 0
        while relay.push(worker):
            held[worker] += 1
        assert sum(held) <= 8
        if turn in (20, 60):  # all of them end
            for number, gate in enumerate(relay.gates):
                for _ in range(held[number]):
                    gate.leave()
                held[number] = 0
        relay.interval()
    assert max(gate.max_in_flight for gate in relay.gates) >= 7


def test_a_worker_that_is_lost_leaves_its_share_to_the_others_and_begins_with_little() -> None:
    relay = Relay(2, rate=200.0, burst=40.0)
    relay.run(2.0, {1: 400.0})
    relay.first.lost(1)
    relay.mail.clear()
    relay.run(1.0, {0: 400.0})
    before = relay.let_in[0]
    relay.run(2.0, {0: 400.0})
    assert relay.let_in[0] - before >= 0.9 * 2 * 200
    relay.first.joined(1)
    relay.interval()
    relay.run(0.3, {0: 400.0, 1: 400.0})
    assert relay.let_in[1] > 0
    sum_before, at = sum(relay.let_in), relay.now
    relay.run(4.0, {0: 400.0, 1: 400.0})
    assert sum(relay.let_in) - sum_before <= 1.05 * ((relay.now - at) * 200 + 40)


def test_a_first_worker_that_is_new_keeps_the_quota_whatever_was_before() -> None:
    relay = Relay(3, rate=200.0, burst=40.0)
    relay.run(3.0, {1: 900.0})  # it has nearly all of it, and says nothing new
    relay.first_dies()
    at, before, here = relay.now, sum(relay.let_in), relay.let_in[1]
    relay.run(4.0, {1: 900.0})
    assert relay.let_in[1] - here >= 0.85 * 4 * 200
    relay.run(4.0, {0: 900.0, 1: 900.0, 2: 900.0})
    assert sum(relay.let_in) - before <= 1.05 * ((relay.now - at) * 200 + 40)


def test_who_comes_back_to_the_same_first_worker_gets_its_share_again() -> None:
    relay = Relay(2, rate=200.0, burst=40.0)
    relay.run(2.0, {1: 900.0})
    relay.first.lost(1)  # the two have lost each other for a moment
    relay.mail.clear()
    relay.first.joined(1)
    relay.others[1].begin()
    relay.run(3.0, {1: 900.0})
    before = relay.let_in[1]
    relay.run(3.0, {1: 900.0})
    assert relay.let_in[1] - before >= 0.9 * 3 * 200


def test_what_is_said_of_many_quotas_fits_the_lines() -> None:
    limits = Limits(10_000)
    said: list[Mapping[str, Any]] = []
    for number in range(3000):
        limits.gate("t" * 63, "sender", f"{number:063}", 4, 0.0, 0.0).enter(1.0)
    Obeying(limits, 2, said.append, lambda: 1.0).say()
    heard = Lines()
    data = b"".join(line(record) for record in said)
    pressed = [one for at in range(0, len(data), 16384) for record in heard.feed(data[at : at + 16384])
               for one in record["pressed"]]  # fmt: skip
    assert len(pressed) == 3000
    assert all(len(line(record)) <= MAX_LINE for record in said)
