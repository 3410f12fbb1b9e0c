"""A process that keeps more than at its start leaks; a little more is none."""

from __future__ import annotations

import pytest

from chaos.leaks import MEMORY, SPARE, Footprint

FIRST = Footprint((7,), 20, 10, 80.0)


def test_a_little_more_is_no_leak():
    assert Footprint((7,), 20 + SPARE, 10 + SPARE, 80.0 + MEMORY).beyond(FIRST) == []
    assert Footprint((7,), 10, 5, 40.0).beyond(FIRST) == []


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (Footprint((7,), 21 + SPARE, 10, 80.0), "descriptors"),
        (Footprint((7,), 20, 11 + SPARE, 80.0), "tasks"),
        (Footprint((7,), 20, 10, 81.0 + MEMORY), "MiB"),
    ],
)
def test_each_leak_is_found(now, text):
    (found,) = now.beyond(FIRST)
    assert text in found
