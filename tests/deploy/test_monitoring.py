"""The alerts: promtool takes them, each is tried by unit tests of promtool's own, and each has its runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "qanat.rules.yaml"
TESTS = Path(__file__).with_name("qanat.rules.test.yaml")


def alerts() -> list[dict[str, Any]]:
    found = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert found
    return found


def promtool(peer, *arguments: str) -> str:
    tool = peer("promtool")
    done = subprocess.run(
        [tool.path, *arguments], capture_output=True, text=True, env=dict(tool.environment), timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules(peer):
    assert f"{len(alerts())} rules found" in promtool(peer, "check", "rules", str(RULES))


def test_each_fires_where_it_should_and_only_there(peer):
    assert "SUCCESS" in promtool(peer, "test", "rules", str(TESTS))


def test_each_is_seen_to_fire():
    tried = TESTS.read_text()
    for alert in alerts():
        assert re.search(rf'alertname(="|: ){alert["alert"]}\b', tried), alert["alert"]


def test_each_has_a_runbook_under_its_name():
    headings = set(re.findall(r"^### (Qanat\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert headings == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
