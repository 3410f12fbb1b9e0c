"""A PKI for all system tests, a target, sites; and what the programs said, beside each test that failed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.kit import LOCATION, TENANT, TRUST_DOMAIN, Site
from tests.system.programs import ROOT, Program, environment
from tests.system.targets import Target, open_target

SITES = pytest.StashKey[list[Site]]()
_SHOWN = 6000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes half a minute or more by its nature")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What certs/generate.py makes: relay, ingress, connectors c1 to c3; and the CA's keys, for whatever else."""
    folder = tmp_path_factory.mktemp("pki")
    argv = [sys.executable, str(ROOT / "certs" / "generate.py"), "--out", str(folder), "--days", "1"]
    argv += ["--trust-domain", TRUST_DOMAIN, "--keep-ca-keys"]
    for host in ("localhost", "127.0.0.1", "0.0.0.0"):
        argv += ["--host", host]
    for name in ("c1", "c2", "c3"):
        argv += ["--connector", f"{TENANT}/{LOCATION}/{name}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, env=environment())
    return folder


@pytest_asyncio.fixture
async def site(
    request: pytest.FixtureRequest, pki: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """A site whose programs are not started yet. Its folder's name is short: a socket's path must be."""
    async with Site(tmp_path_factory.mktemp("site"), pki) as made:
        request.node.stash[SITES] = [made]
        yield made


@pytest_asyncio.fixture
async def target() -> AsyncIterator[Target]:
    """A target that records."""
    async with open_target() as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for site in item.stash.get(SITES, []):
            report.sections += [(f"{program}", _tail(program)) for program in site.programs]
    return report


def _tail(program: Program) -> str:
    return f"stdout:\n{program.out[-_SHOWN // 3 :]}\nstderr:\n{program.err[-_SHOWN:]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, whether or not it was within its bar."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    measured = [pair for report in reports if report.when == "call" for pair in report.user_properties]
    if measured:
        terminalreporter.section("measured")
        for name, value in measured:
            terminalreporter.line(f"{name}: {value}")
