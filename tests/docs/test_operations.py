"""docs/operations.md: its commands are run, and what it shows and lists is what the programs say."""

from __future__ import annotations

import re
import tarfile

import pytest

from connector_agent.prechecks.relay import SKEW
from shared.clock import TOLERANCE
from tests.docs.test_readme import blocks
from tests.system.kit import Site
from tests.system.programs import ROOT, command

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading of the second or third rank."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[2]


def commands(title: str) -> list[str]:
    return [line for block in blocks(section(title)) if block.language == "sh" for line in block.text.splitlines()]


@pytest.mark.system
async def test_the_connectors_checks(site: Site, target):
    site.expose(target, "metrics")
    await site.start()
    (site.folder / "c1.yaml").rename(site.folder / "connector.yaml")
    lines = commands("The connector: `connector-agent check`")
    assert len(lines) == 3
    for line in lines:
        name, *arguments = line.split()
        program = site.run("check", command(name), *arguments)
        assert await program.ended() == 0, f"{line}\n{program.out}\n{program.err}"


@pytest.mark.system
async def test_the_relays_checks(site: Site, target):
    site.expose(target)
    await site.start()
    lines = commands("The relay: `cloud-relay check --live`")
    assert len(lines) == 3
    for line in lines:
        name, *arguments = line.split()
        program = site.run("check", command(name), *arguments)
        assert await program.ended() == 0, f"{line}\n{program.out}\n{program.err}"


@pytest.mark.system
async def test_the_archives(site: Site, target):
    site.expose(target)
    await site.start()
    (site.folder / "c1.yaml").rename(site.folder / "connector.yaml")
    title = "One archive for whoever is to help: `diag`"
    lines = commands(title)
    assert len(lines) == 2
    for line in lines:
        name, *arguments = line.split()
        program = site.run(name, command(name), *arguments)
        assert await program.ended() == 0, f"{line}\n{program.out}\n{program.err}"
        (archive,) = site.folder.glob(f"{name}-diag-*.tar.gz")
        with tarfile.open(archive) as found:
            names = {entry.rpartition("/")[2] for entry in found.getnames()} - {"README.txt"}
        told = set(re.findall(r"\b[a-z]+\.(?:json|jsonl|txt)\b", section(title)))
        assert names == told - {"missing.txt"}


def test_every_line_of_the_ladder_is_told():
    told = section("The connector: `connector-agent check`")
    for check in ("DNS", "proxy", "TCP", "TLS", "chain", "interception", "admission", "clock"):
        assert re.search(rf"^\|[^|]*\b{check}\b", told, re.MULTILINE), check
    assert f"over {SKEW:.0f} s is a warning, over {TOLERANCE:.0f} s a failure" in told


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", PAGE)
    assert all((ROOT / "docs" / link).exists() for link in links)
