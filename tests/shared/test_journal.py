"""Lines for systemd's journal, through logs and commands, and when there is none."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from shared.cli import CommandError, ExitCode, invoke, is_journal, make_app
from shared.journal import leads_to_journal, with_priority
from shared.logs import get_logger, setup_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    setup_logging()


def stream_of(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def test_only_the_very_stream_counts(tmp_path: Path) -> None:
    with (tmp_path / "one").open("w") as one, (tmp_path / "two").open("w") as two:
        assert leads_to_journal(stream_of(one.fileno()), one.fileno())
        assert not leads_to_journal(stream_of(one.fileno()), two.fileno())
        assert not leads_to_journal("", one.fileno())
        closed = one.fileno()
    assert not leads_to_journal("1:2", closed)


def test_every_line_has_its_priority() -> None:
    assert with_priority("a", "info") == "<6>a"
    assert with_priority("a\n    b\n", "error") == "<3>a\n<3>    b\n"


def test_lines_for_people_have_a_priority_and_no_time_of_their_own() -> None:
    out = io.StringIO()
    setup_logging(None, "debug", out, is_journal=True)
    log = get_logger("relay")
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("it happens", name="x\ny")
    try:
        raise ValueError("a bug")
    except ValueError:
        log.exception("it failed")
    lines = out.getvalue().splitlines()
    assert lines[:4] == [
        "<7>debug   relay: it happens name=x\\u000ay",
        "<6>info    relay: it happens name=x\\u000ay",
        "<4>warning relay: it happens name=x\\u000ay",
        "<3>error   relay: it happens name=x\\u000ay",
    ]
    assert lines[4] == "<3>error   relay: it failed"
    assert lines[-1] == "<3>    ValueError: a bug"
    assert all(line.startswith("<3>    ") for line in lines[5:])


def test_json_stays_json_behind_the_priority() -> None:
    out = io.StringIO()
    setup_logging("json", "info", out, is_journal=True)
    get_logger("relay").warning("it happens")
    priority, line = out.getvalue()[:3], json.loads(out.getvalue()[3:])
    assert priority == "<4>"
    assert line["event"] == "it happens"
    assert "time" in line


def test_what_a_command_ends_with(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app: typer.Typer = make_app("test", "")

    @app.command()
    def fail() -> None:
        raise CommandError(ExitCode.CONFIG, "the config has a problem", "Mend it.")

    assert invoke(app, []) == 3
    assert capfd.readouterr().err == "error: the config has a problem\nMend it.\n"
    monkeypatch.setenv("JOURNAL_STREAM", stream_of(2))
    assert is_journal()
    assert invoke(app, []) == 3
    assert capfd.readouterr().err == "<3>error: the config has a problem\n<3>Mend it.\n"
