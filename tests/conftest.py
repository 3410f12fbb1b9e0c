"""What all tests share: peers that may be missing, Hypothesis' profiles, and the order of slow tests."""

from __future__ import annotations

import os
from collections.abc import Callable

import hypothesis
import pytest

from tests.support.peers import NOT_UNPACKED, Peer, find_peer

PREFIX = "no peer "

# A slow machine is no failure of a property; `HYPOTHESIS_PROFILE=deep make test` looks a hundred times longer.
hypothesis.settings.register_profile("fast", max_examples=100, deadline=None)
hypothesis.settings.register_profile("deep", max_examples=10_000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture
def peer() -> Callable[[str], Peer]:
    """Finds a peer: `peer("nginx")` gives its path and environment, or leaves the test out (under CI: fails it)."""

    def find(name: str) -> Peer:
        found = find_peer(name)
        if found is None:
            if os.environ.get("CI") == "true" and name not in NOT_UNPACKED:
                pytest.fail(f"{PREFIX}{name}: under CI every peer must be there; look at the output of tools/peers.sh")
            pytest.skip(f"{PREFIX}{name}: {NOT_UNPACKED.get(name, 'run `make peers`')}")
        return found

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A loud list of what was left out for want of a peer: a green run without them is only half a run."""
    missing: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if PREFIX in reason:
            name = reason.partition(PREFIX)[2].partition(":")[0]
            missing.setdefault(name, []).append(report.nodeid)
    if not missing:
        return
    terminalreporter.section("LEFT OUT: peers are missing (run `make peers`)", sep="!", red=True, bold=True)
    for name, tests in sorted(missing.items()):
        terminalreporter.line(f"{name}: {len(tests)} tests")
        for test in sorted(tests):
            terminalreporter.line(f"    {test}")
