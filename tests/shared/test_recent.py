"""The ring of recent lines: bounded, and fed by the log after its own rules."""

from __future__ import annotations

import io

import pytest

from shared import logs
from shared.recent import RecentLines


def test_only_warnings_and_errors_are_kept() -> None:
    ring = RecentLines()
    for level in ("debug", "info", "warning", "error"):
        ring.note({"level": level, "event": level})
    assert [line["event"] for line in ring.lines()] == ["warning", "error"]


def test_it_is_bounded_in_lines() -> None:
    ring = RecentLines(max_lines=3)
    for number in range(10):
        ring.note({"level": "error", "number": number})
    assert [line["number"] for line in ring.lines()] == [7, 8, 9]
    assert ring.forgotten == 7


def test_it_is_bounded_in_bytes() -> None:
    ring = RecentLines(max_bytes=1000)
    for number in range(100):
        ring.note({"level": "error", "number": number, "text": "x" * 100})
    assert sum(len(str(line)) for line in ring.lines()) < 1200
    assert ring.lines()[-1]["number"] == 99
    ring.note({"level": "error", "text": "x" * 2000})  # larger than all of it
    assert ring.lines() == []


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_log_feeds_it(monkeypatch: pytest.MonkeyPatch, format: logs.LogFormat) -> None:  # noqa: A002
    ring = RecentLines()
    monkeypatch.setattr(logs, "RECENT", ring)
    out = io.StringIO()
    logs.setup_logging(format, "info", out)
    log = logs.get_logger("test")
    log.info("nothing to see")
    log.warning("look", password="planted", path="/x")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("worse")
    warning, error = ring.lines()
    assert warning["event"] == "look"
    assert warning["password"] == "***"
    assert error["level"] == "error"
    assert "ValueError: broken" in error["traceback"][-1]
    assert "look" in out.getvalue()
