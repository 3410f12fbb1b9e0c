"""The fuzzers' targets: they hold for their seeds and for what is near to them, and a target that breaks is told."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import __main__ as command
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

CASES = [(name, seed) for name, seeds in SEEDS.items() for seed in seeds]
EDIT = st.tuples(st.integers(0, 4000), st.integers(0, 3), st.binary(max_size=3))


def test_every_target_has_seeds():
    assert TARGETS.keys() == SEEDS.keys()
    assert all(SEEDS.values())


@given(st.sampled_from(CASES), st.lists(EDIT, max_size=4))
def test_what_is_near_to_a_seed_breaks_nothing(case: tuple[str, bytes], edits: list[tuple[int, int, bytes]]) -> None:
    name, data = case
    for at, removed, added in edits:
        at %= len(data) + 1
        data = data[:at] + added + data[at + removed :]
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_at_all_breaks_nothing(name: str) -> None:
    TARGETS[name](b"")


def test_a_target_that_is_not_there_is_a_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["frames", "framse"])
    assert ended.value.code == 2
    assert "no such target: framse" in capsys.readouterr().err


@pytest.mark.parametrize(("ends_with", "code"), [(0, 0), (77, 1)])
def test_a_target_that_breaks_is_the_commands_failure(tmp_path, capfd, monkeypatch, ends_with, code):
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\necho '==1== ERROR: libFuzzer' >&2\nexit {ends_with}\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    assert command.main(["hello", "--folder", str(tmp_path)]) == code
    told = capfd.readouterr()
    assert f"{1 - code} of 1 targets held" in told.out
    assert ("fuzz: again:" in told.err) == bool(code)
    assert sorted(path.name for path in (tmp_path / "hello").iterdir()) == ["seed-0", "seed-1"]
