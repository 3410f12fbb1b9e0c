"""A short session of the fault suite, with a seed of its own: every ledger balances, and all comes back in time."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from tests.system.programs import ROOT, environment

pytestmark = [pytest.mark.system, pytest.mark.timing, pytest.mark.slow, pytest.mark.timeout(180)]

SEED = 5
SECONDS = 20
FAULTS = (
    "kill-relay", "kill-connector", "kill-only-connector", "kill-target", "drop-one-way", "destroyed-sockets",
    "single-bytes",
)  # fmt: skip
"""Those that take a few seconds each."""


async def test_a_short_session(tmp_path, record_property):
    argv = [sys.executable, "-m", "chaos", "--seconds", str(SECONDS), "--seed", str(SEED), "--output", str(tmp_path)]
    argv += ["--fault", ",".join(FAULTS)]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    played = re.search(r"runs=(\d+) good=\1 ", said)
    assert played is not None, said
    assert int(played[1]) >= 3, said
    record_property("faults played, all ledgers balanced", int(played[1]))
