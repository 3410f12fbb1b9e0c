"""What is open by a client certificate ends with it, by the wall clock, and nothing runs while there is none."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from cloud_relay.certificate_watch import INTERVAL, CertificateWatch
from shared.clock import TrustedClock
from shared.errors import Fault
from tests.cloud_relay.ingress.fakes import Clock

NOW = 1_800_000_000.0


class Peer:
    def __init__(self, not_after: float) -> None:
        self.not_after = not_after

    def is_in_time(self, now: float) -> bool:
        return now < self.not_after


class Open:
    def __init__(self, watch: CertificateWatch, lasts: float | None) -> None:
        self.peer: Any = None if lasts is None else Peer(NOW + lasts)
        self.ended: list[str] = []
        self.watch = watch
        watch.add(self)

    def end(self, fault: Fault) -> None:
        self.ended.append(fault.code)
        self.watch.discard(self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """A wall clock that goes with the loop's; what is appended sets it on."""
    began, ahead = clock.time(), [0.0]
    monkeypatch.setattr(time, "time", lambda: NOW + clock.time() - began + sum(ahead))
    return ahead


def test_each_ends_within_a_second_of_its_end(clock, wall):
    watch = CertificateWatch(cast(Any, clock), time.time)
    short, long, other = Open(watch, 2.5), Open(watch, 1000.0), Open(watch, None)
    clock.sleep(2.4)
    assert short.ended == []
    clock.sleep(INTERVAL)
    assert short.ended == ["sender-certificate-expired"]
    assert (long.ended, other.ended, len(watch)) == ([], [], 1)
    wall.append(2000.0)  # the wall clock is set
    clock.sleep(INTERVAL)
    assert long.ended == ["sender-certificate-expired"]
    assert clock.armed == 0


def test_a_wall_clock_that_is_not_believed_ends_nothing(clock, wall):
    began = clock.time()
    trusted = TrustedClock(time.time, lambda: clock.time() - began)
    watch = CertificateWatch(cast(Any, clock), trusted.timestamp)
    one = Open(watch, 1000.0)
    wall.append(86400.0)
    clock.sleep(500.0)
    assert one.ended == []
    clock.sleep(600.0)
    assert one.ended == ["sender-certificate-expired"]


def test_nothing_runs_for_nobody(clock, wall):
    watch = CertificateWatch(cast(Any, clock), time.time)
    assert (Open(watch, None).ended, clock.armed) == ([], 0)
    one = Open(watch, 1000.0)
    assert clock.armed == 1
    watch.discard(one)
    watch.discard(one)
    assert clock.armed == 0


def test_one_whose_end_fails_keeps_no_other_from_its_own(clock, wall, monkeypatch):
    watch = CertificateWatch(cast(Any, clock), time.time)
    broken, other = Open(watch, 0.5), Open(watch, 1.5)

    def fail(_fault: Fault) -> None:
        watch.discard(broken)
        raise RuntimeError("a bug")

    monkeypatch.setattr(broken, "end", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        clock.sleep(INTERVAL)
    clock.sleep(2 * INTERVAL)
    assert other.ended == ["sender-certificate-expired"]
    assert clock.armed == 0
