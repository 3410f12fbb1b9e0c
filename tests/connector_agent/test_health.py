"""The sentence that the service manager shows of a connector."""

from __future__ import annotations

from typing import Any

import pytest

from connector_agent.health import ConnectorState, report, sentence, target_state
from connector_agent.metrics import SPEAKS_AGAINST
from shared.errors import FAULTS
from tests.connector_agent.kit import World, scenario


def row(code: str | None = None, relay: str = "relay.example:443") -> dict[str, Any]:
    return {"relay": relay, "code": code}


@pytest.mark.parametrize(
    ("state", "tunnels", "rows", "targets", "said"),
    [
        (ConnectorState.STARTING, 0, [], {}, "starting"),
        (ConnectorState.SERVING, 2, [row(), row()], {"a": "ok", "b": "unknown"}, "2 tunnels up, 2 targets"),
        (
            ConnectorState.SERVING, 0, [row("relay-untrusted"), row()], {"a": "ok"},
            "no tunnel is up (relay-untrusted at relay.example:443), 1 target",
        ),
        (
            ConnectorState.SERVING, 1, [row(), row("dns-failure", "two.example:443")], {"a": "failing", "b": "ok"},
            "1 tunnel up (dns-failure at two.example:443), 1 of 2 targets failing: a",
        ),
        (
            ConnectorState.SERVING, 1, [row()], dict.fromkeys("edcba", "failing"),
            "1 tunnel up, 5 of 5 targets failing: a, b, c, …",
        ),
        (ConnectorState.DRAINING, 1, [row()], {"a": "ok"}, "draining, 3 pushes in flight"),
    ],
)  # fmt: skip
def test_the_sentence(
    state: ConnectorState, tunnels: int, rows: list[dict[str, Any]], targets: dict[str, str], said: str
) -> None:
    assert sentence(report(state, tunnels, targets), rows, 3) == said


@scenario
async def test_what_a_push_says_of_its_target() -> None:
    target = World().target
    ends = target.metrics.finished
    assert target_state(target) == "unknown"
    ends(0, "path-not-allowed", 0.1, 1.0)
    assert target_state(target) == "unknown"
    ends(503, "", 0.1, 2.0)  # the target's own answer, whatever it is
    assert target_state(target) == "ok"
    ends(0, "target-lost", 0.1, 3.0)
    assert target_state(target) == "failing"
    ends(0, "method-not-allowed", 0.1, 4.0)
    assert target_state(target) == "failing"
    assert target.metrics.last_code == "method-not-allowed"
    ends(101, "target-too-slow", 0.1, 5.0)  # a WebSocket that was idle in the end
    ends(0, "path-not-allowed", 0.1, 6.0)
    assert target_state(target) == "ok"


def test_what_speaks_against_a_target_is_in_the_catalogue() -> None:
    assert set(FAULTS) >= SPEAKS_AGAINST
