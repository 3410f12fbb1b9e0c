"""CPU and memory of process trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.procfs import Stat, parse_stat, read_cost, read_peak_rss_mib, read_rss_mib, read_stat, select_tree
from benchmarks.programs import find_program, missing_programs, start_process

LINE = "42 (a b) c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 12345 1000 200 18446744073709551615 1 1 0"


def test_a_line_of_stat_with_a_name_full_of_brackets() -> None:
    stat = parse_stat(LINE)
    ticks = os.sysconf("SC_CLK_TCK")
    assert stat == Stat(42, 7, 12345, 250 / ticks)


def test_a_tree_is_found_by_parents() -> None:
    stats = [Stat(1, 0, 0, 0.0), Stat(2, 1, 0, 0.0), Stat(3, 2, 0, 0.0), Stat(4, 1, 0, 0.0), Stat(5, 9, 0, 0.0)]
    assert sorted(select_tree(stats, 2)) == [2, 3]
    assert sorted(select_tree(stats, 1)) == [1, 2, 3, 4]
    assert select_tree(stats, 99) == {}


def test_this_process_costs_something() -> None:
    cost = read_cost([os.getpid()])
    assert cost.cpu_s > 0
    assert cost.rss_mib > 1
    assert read_peak_rss_mib(os.getpid()) >= read_rss_mib(os.getpid()) > 0


def test_a_process_that_is_gone_costs_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert read_stat(process.pid) is None
    assert read_cost([process.pid]) == (0.0, 0.0)


def test_stopping_ends_the_children_too(tmp_path: Path) -> None:
    process = start_process(["sh", "-c", "sleep 60 & echo $!; wait"], name="sh", folder=tmp_path)
    while not (child := process.tail()):
        pass
    assert read_stat(int(child)) is not None
    process.stop()
    assert not process.is_running
    ended = Path(f"/proc/{child}/stat")
    assert not ended.exists() or " Z " in ended.read_text() or _ends_soon(ended)


def _ends_soon(stat: Path) -> bool:
    for _ in range(1000):
        try:
            if " Z " in stat.read_text():
                return True
        except OSError:
            return True
        os.sched_yield()
    return False


def test_programs_that_are_missing_are_named() -> None:
    assert missing_programs("sh", "no-such-program") == ["no-such-program"]
    shell = find_program("sh")
    assert shell is not None
    assert shell.environment == {}
