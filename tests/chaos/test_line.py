"""What a line's shape does to packets, in a time of the test's own."""

from __future__ import annotations

import random

from chaos.line import Shape, Way


def way(**shape: float) -> Way:
    return Way(Shape(**shape), random.Random(1))  # type: ignore[arg-type]


def test_a_plain_line_passes_everything_at_once():
    line = Way()
    line.take(b"one", 10.0)
    assert line.due(10.001) == [b"one"]
    assert line.next_due() is None


def test_delay_and_rate():
    line = way(delay=0.5, bits_per_s=8000)
    line.take(bytes(100), 10.0)
    line.take(bytes(100), 10.0)
    assert line.due(10.59) == []
    assert len(line.due(10.61)) == 1
    assert len(line.due(10.71)) == 1


def test_a_full_queue_drops():
    line = way(bits_per_s=8000, queue_bytes=250)
    for _ in range(10):
        line.take(bytes(100), 0.0)
    assert len(line.due(100.0)) == 3


def test_jitter_keeps_the_order():
    line = way(delay=0.1, jitter=0.2)
    for number in range(200):
        line.take(bytes([number]), number * 0.001)
    assert [packet[0] for packet in line.due(10.0)] == list(range(200))


def test_reordering_lets_some_overtake():
    line = way(delay=0.05, reorder=0.2)
    for number in range(200):
        line.take(bytes([number]), number * 0.001)
    arrived = [packet[0] for packet in line.due(10.0)]
    assert sorted(arrived) == list(range(200))
    assert arrived != sorted(arrived)


def test_loss_is_about_as_much_as_it_says():
    line = way(loss=0.1)
    for _ in range(2000):
        line.take(b"x", 0.0)
    assert 1700 < len(line.due(1.0)) < 1900


def test_another_shape_counts_for_what_comes_then():
    line = way(delay=5.0)
    line.take(b"slow", 0.0)
    line.become(Shape(), "seed")
    line.take(b"next", 0.1)
    assert line.due(1.0) == [], "a stream's order is kept"
    assert line.due(5.1) == [b"slow", b"next"]
