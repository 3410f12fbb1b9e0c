"""The sentence that the service manager shows of a connector."""

from __future__ import annotations

from typing import Any

import pytest

from connector_agent.health import ConnectorState, report, sentence


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
