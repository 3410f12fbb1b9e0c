"""When certificates end, and what is said of it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from cloud_relay.expiries import Expiry, near
from cloud_relay.show import identity_lines

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IDENTITY = {
    "clock_is_doubtful": False, "clock_error_s": 0.0, "roll_over": "steady", "waits_for": 0,
    "certificates": [
        {"kind": "relay", "name": "r1", "not_after": "2026-03-08T00:00:00Z", "warning": ""},
        {"kind": "root", "name": "generation 1", "not_after": "2036-03-01T00:00:00Z", "warning": ""},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("lifetime", "left", "is_near"),
    [(365, 31, False), (365, 29, True), (7, 3, False), (7, 2, True), (0, 31, False), (0, 29, True)],
)
def test_what_somebody_else_renews_is_named_in_time(lifetime, left, is_near):
    one = Expiry("ingress", "i.pem", NOW + timedelta(days=left), lifetime=timedelta(days=lifetime))
    assert bool(near(one, NOW)) is is_near


def shown(**changes) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for line in identity_lines({**IDENTITY, **changes}):
        console.print(line)
    return console.export_text()


def test_status_says_what_is_to_be_done_and_else_little():
    assert "all good, the first ends at 2026-03-08T00:00:00Z (relay)" in shown()
    assert "waiting for 2 connectors" in shown(roll_over="published", waits_for=2)
    assert "jumped by" in shown(clock_is_doubtful=True, clock_error_s=-86400.0)
    late = {"kind": "root", "name": "generation 1", "not_after": "2026-04-01T00:00:00Z", "warning": "roll it over"}
    assert "The root certificate generation 1 ends at 2026-04-01T00:00:00Z: roll it over." in shown(certificates=[late])
    assert identity_lines(None) == []
