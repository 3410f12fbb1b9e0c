"""Backoff: the whole range from zero, growth up to a cap that may move, a reset."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import FIRST, Backoff


def almost_one() -> float:
    return 1.0


def test_the_bound_doubles_up_to_the_cap():
    assert list(islice(Backoff(cap=3.0, source=almost_one), 6)) == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_jitter_covers_everything_from_zero():
    draws = iter([0.0, 0.5, 0.25])
    assert list(islice(Backoff(cap=1.0, source=lambda: next(draws)), 3)) == [0.0, 0.2, 0.2]


def test_a_raised_cap_lets_it_grow_on():
    backoff = Backoff(cap=0.5, source=almost_one)
    assert list(islice(backoff, 4)) == [0.2, 0.4, 0.5, 0.5]
    backoff.cap = 15.0
    assert list(islice(backoff, 3)) == [0.5, 1.0, 2.0]


def test_a_lowered_cap_counts_at_once():
    backoff = Backoff(cap=15.0, source=almost_one)
    list(islice(backoff, 10))
    backoff.cap = 1.0
    assert next(backoff) == 1.0


def test_a_cap_below_the_first_bound_is_kept_to():
    assert list(islice(Backoff(cap=0.05, source=almost_one), 3)) == [0.05, 0.05, 0.05]


def test_reset_starts_again():
    backoff = Backoff(cap=15.0, source=almost_one)
    list(islice(backoff, 5))
    assert backoff.tries == 5
    backoff.reset()
    assert backoff.tries == 0
    assert next(backoff) == FIRST


def test_it_never_ends_and_never_overflows():
    backoff = Backoff(cap=15.0, source=almost_one)
    assert max(islice(backoff, 20_000)) == 15.0


@given(st.floats(0.001, 1e6), st.integers(1, 80))
def test_no_delay_exceeds_the_cap(cap, count):
    assert all(0 <= delay <= cap for delay in islice(Backoff(cap=cap), count))


def test_repr():
    assert repr(Backoff(cap=15.0)) == "<Backoff tries=0 bound=0.2 cap=15>"
