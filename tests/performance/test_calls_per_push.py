"""A guard against the hot path growing: it counts calls, which no noise can disturb, where a benchmark takes time.

When it fails after a change that is worth its calls, raise the figure in the same commit, and say there what it costs
(`.venv/bin/python -m benchmarks --scenario small-16`). When a change makes calls fewer, lower it: the bounds are
half a call above what was counted, so that a single call a push is noticed. The compiled build is not counted: the
profiler sees none of its calls, and its source is the same.
"""

from __future__ import annotations

import pytest

from tests.support.whole_path import WholePath, counted_calls

ROUNDS = 20


@pytest.mark.parametrize(("senders", "most"), [(1, 304.5), (16, 248.2)])
async def test_a_small_push_takes_no_more_calls(senders: int, most: float, tmp_path) -> None:
    path = WholePath(senders, tmp_path)
    await path.settle()
    assert await path.push(3) == 3 * senders  # connections, memos and caches are there now
    with counted_calls() as calls:
        answered = await path.push(ROUNDS)
    assert answered == ROUNDS * senders
    assert path.relay.bugs == []
    await path.close()
    found = sum(calls.values()) / answered
    table = "\n".join(
        f"{count / answered:7.2f}  {name}" for name, count in sorted(calls.items()) if count * 50 > answered
    )
    assert found <= most, f"{found:.1f} calls a push, Python's and C's, {senders} in flight; a push:\n{table}"
