"""The time of day, believed only as far as it agrees with time that cannot be set."""

from __future__ import annotations

import pytest

from shared.clock import TOLERANCE, TrustedClock

DAY = 86_400.0


class Times:
    def __init__(self) -> None:
        self.wall = 1_772_000_000.0
        self.monotonic = 50.0

    def pass_by(self, seconds: float, *, drift: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + drift


@pytest.fixture
def times():
    return Times()


@pytest.fixture
def clock(times):
    return TrustedClock(lambda: times.wall, lambda: times.monotonic)


def test_it_is_the_wall_clock(times, clock):
    times.pass_by(1000)
    assert clock.timestamp() == times.wall
    assert clock.now().timestamp() == times.wall
    assert not clock.is_doubtful


@pytest.mark.parametrize("jump", [40 * DAY, -DAY, 3600.0])
def test_a_jump_is_not_believed_and_forgiven_when_it_is_taken_back(times, clock, jump):
    times.pass_by(10)
    right = times.wall
    times.wall += jump
    times.pass_by(5)
    assert clock.timestamp() == pytest.approx(right + 5)
    assert clock.is_doubtful
    assert clock.error_seconds == pytest.approx(jump)
    times.wall -= jump
    assert not clock.is_doubtful
    assert clock.timestamp() == times.wall


def test_a_slow_drift_never_becomes_a_doubt(times, clock):
    for _ in range(1000):
        times.pass_by(60, drift=1.0)
        clock.timestamp()
    assert not clock.is_doubtful
    assert clock.timestamp() == times.wall


def test_it_is_led_by_a_better_clock(times, clock):
    right = times.wall - 40 * DAY
    clock.observe(right)
    assert clock.is_doubtful
    times.pass_by(7)
    assert clock.timestamp() == pytest.approx(right + 7)
    clock.observe(times.wall + TOLERANCE / 2)
    assert not clock.is_doubtful
