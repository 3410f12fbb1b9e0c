"""The delay line: rate, delay and queue."""

from __future__ import annotations

from benchmarks.delay_line import Direction


def test_a_packet_takes_its_own_length_and_the_delay() -> None:
    line = Direction(bits_per_s=8000, delay_s=0.5, queue_bytes=10_000)
    line.take(b"x" * 100, 10.0)  # 100 bytes at 1000 bytes/s
    assert line.next_due() == 10.6
    assert line.due(10.59) == []
    assert line.due(10.61) == [b"x" * 100]
    assert line.next_due() is None


def test_packets_wait_for_each_other() -> None:
    line = Direction(8000, 0.0, 10_000)
    for _ in range(3):
        line.take(b"x" * 100, 0.0)
    assert [len(line.due(moment)) for moment in (0.05, 0.15, 0.25, 0.35)] == [0, 1, 1, 1]


def test_a_full_queue_drops() -> None:
    line = Direction(8000, 0.0, queue_bytes=250)
    for _ in range(10):
        line.take(b"x" * 100, 0.0)
    assert (len(line.waiting), line.dropped) == (3, 7)
    line.take(b"x" * 100, 1.0)
    assert len(line.waiting) == 4
