"""The witness of the garbage collector."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gc_watch import read_pauses, watch


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    callbacks, handler = list(gc.callbacks), signal.getsignal(signal.SIGUSR2)
    watch(tmp_path / "pauses")
    yield tmp_path / "pauses"
    gc.callbacks[:] = callbacks
    signal.signal(signal.SIGUSR2, handler)


def test_each_collection_is_written_down(file: Path) -> None:
    begin = time.monotonic()
    gc.collect(0)
    gc.collect()
    end = time.monotonic()
    gc.collect()
    pauses = read_pauses(file, begin, end)
    assert [pause.generation for pause in pauses if pause.generation != 1] == [0, 2]
    assert all(0 <= pause.seconds <= end - begin for pause in pauses)


def test_a_full_collection_can_be_asked_for(file: Path) -> None:
    before = time.monotonic()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert 2 in [pause.generation for pause in read_pauses(file, before)]


def test_half_a_record_is_left_alone(file: Path) -> None:
    gc.collect()
    with file.open("ab") as torn:
        torn.write(b"half")
    assert read_pauses(file)
