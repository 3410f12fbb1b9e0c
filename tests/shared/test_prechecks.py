"""What prechecks come to: lines for people at any width, an object for scripts, an exit code."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from shared.exits import ExitCode
from shared.prechecks import (
    Checklist,
    Figure,
    Precheck,
    Stopwatch,
    days_left,
    exit_code_of,
    prechecks_table,
    prechecks_view,
)

REMEDY = "Have it excepted from the inspection of TLS, or check the address in the config."


def rows() -> list[Precheck]:
    relay = Checklist("relay relay.example.com:443")
    relay.ok("DNS", "relay.example.com is 203.0.113.7", Figure(3.14, "ms"))
    relay.failed("interception", "'CN=\x1b[31mCorp' signed it", REMEDY, code="relay-untrusted")
    relay.skipped("after interception", "chain", "admission")
    other = Checklist("hosts")
    other.warning("a-host-with-a-very-long-name.example.com", "it ends soon", "Renew it.", Figure(12.3, "days"))
    return relay.rows + other.rows


def shown(width: int, *, terminal: bool = False) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, force_terminal=terminal).print(
        prechecks_table(rows())
    )
    return out.getvalue().splitlines()


def test_in_a_pipe_each_check_is_one_line_with_its_remedy() -> None:
    lines = [line.rstrip() for line in shown(10_000)]
    assert lines == [
        "relay relay.example.com:443",
        "ok       DNS             3.1 ms  relay.example.com is 203.0.113.7",
        f"failed   interception            'CN=�[31mCorp' signed it → {REMEDY}",
        "skipped  chain                   after interception",
        "skipped  admission               after interception",
        "",
        "hosts",
        "warning  a-host-with-a-very-long-name.example.com  12 days  it ends soon → Renew it.",
        "",
        "1 ok, 1 warning, 1 failed, 2 skipped",
    ]


def test_the_sum_counts_in_words() -> None:
    host = Checklist("host")
    host.warning("files", "few may be open")
    host.warning("clock", "nobody keeps it")
    out = io.StringIO()
    Console(file=out, width=120).print(prechecks_table(host.rows))
    assert out.getvalue().splitlines()[-1] == "2 warnings"


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_words_wrap_and_names_do_not(width: int) -> None:
    lines = shown(width, terminal=False)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for whole in ("interception ", "a-host-with-a-very-long-name.example.com", "3.1 ms", "excepted"):
        assert whole in text
    assert "\x1b[" in "\n".join(shown(width, terminal=True))
    assert "\x1b" not in text


def test_an_object_for_scripts() -> None:
    view = prechecks_view(rows())
    assert view["good"] is False
    assert view["counts"] == {"ok": 1, "warning": 1, "failed": 1, "skipped": 2}
    assert view["checks"][0] == {
        "subject": "relay relay.example.com:443", "check": "DNS", "result": "ok", "value": 3.14, "unit": "ms",
        "detail": "relay.example.com is 203.0.113.7", "remedy": None, "code": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], ExitCode.OK),
        ([ExitCode.CREDENTIAL], ExitCode.CREDENTIAL),
        ([ExitCode.REFUSED, ExitCode.REFUSED], ExitCode.REFUSED),
        ([ExitCode.CREDENTIAL, ExitCode.FAILED], ExitCode.FAILED),
        ([ExitCode.NOT_FOUND, ExitCode.CREDENTIAL], ExitCode.FAILED),
        ([ExitCode.FAILED, ExitCode.CONFIG], ExitCode.CONFIG),
    ],
)
def test_exit_codes(codes: list[ExitCode], expected: ExitCode) -> None:
    checks = Checklist("x")
    checks.ok("well")
    checks.warning("odd", "it is odd", "Look.")
    for number, code in enumerate(codes):
        checks.failed(str(number), "broken", "Mend it.", exit_code=code)
    assert exit_code_of(checks.rows) == expected


def test_figures() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert str(days_left(now + timedelta(hours=36), now)) == "1.5 days"
    assert str(days_left(now - timedelta(days=20), now)) == "-20 days"
    assert str(Figure(1234.5, "MiB")) == "1234 MiB"
    with Stopwatch() as watch:
        pass
    assert watch.figure.unit == "ms"
    assert 0 <= watch.figure.value < 1000
