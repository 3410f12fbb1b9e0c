from __future__ import annotations

import errno
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.text import Text

from shared.cli import CommandError, ExitCode, JsonOption, emit, invoke, make_app, make_table
from shared.config import ConfigError, Problem


@pytest.fixture
def command():
    """A program with one command per way to end."""
    app = make_app("tool", "A tool.")

    @app.command()
    def status(json: JsonOption = False, name: str = "x"):
        emit(
            {"name": name, "at": datetime(2025, 1, 31, 8, tzinfo=UTC), "path": Path("/x"), "code": ExitCode.REFUSED},
            schema="qanat.status.v1",
            json=json,
            table=lambda: make_table(["Name", "Tunnels"], [[name, 2], ["b", None]]),
        )

    @app.command()
    def fail(how: str, json: JsonOption = False):
        raise {
            "refused": CommandError(ExitCode.REFUSED, "it is blocked\x1b[2J", "Unblock it.", "blocked", name="dc1"),
            "config": ConfigError(
                [Problem(Path("a.yaml"), 3, "x.y", "is wrong"), Problem(Path("b.yaml"), None, "", "is gone")]
            ),
            "port": OSError(errno.EADDRINUSE, "Address already in use"),
            "file": FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/file"),
            "bug": KeyError("oops"),
            "interrupt": KeyboardInterrupt(),
            "exit": typer.Exit(7),
            "abort": typer.Abort(),
            "bad": typer.BadParameter("must be odd"),
        }[how]

    return lambda *arguments: invoke(app, arguments)


def test_people_get_a_table(command, capsys):
    assert command("status") == ExitCode.OK
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [["Name", "Tunnels"], ["x", "2"], ["b", "-"]]
    assert err == ""


def test_scripts_get_one_object_with_a_schema(command, capsys):
    assert command("status", "--json") == ExitCode.OK
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "schema": "qanat.status.v1", "name": "x", "at": "2025-01-31T08:00:00Z", "path": "/x", "code": 5,
    }  # fmt: skip
    assert out.count("\n") == 1
    assert err == ""


def test_a_pipe_gets_whole_values(command, capsys):
    command("status", "--name", "n" * 300)
    assert "n" * 300 in capsys.readouterr().out


def test_cells_are_no_markup_and_move_no_cursor(command, capsys):
    command("status", "--name", "[red]\x1b[2J\u202e[/red]")
    out = capsys.readouterr().out
    assert "[red]\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}[/red]" in out
    assert "\x1b" not in out


def test_a_styled_cell_keeps_its_style():
    cell = Text("red", style="red")
    assert next(iter(make_table(["A"], [[cell]]).columns[0].cells)) is not None


def test_a_text_is_printed_as_it_is(capsys):
    emit({}, schema="x", json=False, table="a [bold]b[/bold] " + "c" * 200)
    assert capsys.readouterr().out == "a [bold]b[/bold] " + "c" * 200 + "\n"


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("refused", ExitCode.REFUSED, ["error: it is blocked", "Unblock it."]),
        (
            "config",
            ExitCode.CONFIG,
            ["error: the config has 2 problems", "  a.yaml:3: x.y: is wrong", "  b.yaml: is gone"],
        ),
        ("port", ExitCode.FAILED, ["error: Address already in use"]),
        ("file", ExitCode.FAILED, ["error: /no/file: No such file or directory"]),
        ("bad", ExitCode.USAGE, ["must be odd"]),
        ("interrupt", 130, []),
        ("exit", ExitCode.CREDENTIAL, []),
        ("abort", 130, []),
    ],
)
def test_expected_faults_end_without_a_traceback(command, capsys, how, code, words):
    assert command("fail", how) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "\x1b" not in err
    for word in words:
        assert word in err


def test_a_bug_shows_its_traceback_and_asks_for_a_report(command, capsys):
    assert command("fail", "bug") == ExitCode.FAILED
    err = capsys.readouterr().err
    assert err.startswith("error: KeyError: 'oops'\n  Traceback")
    assert "please report it" in err


class TestProblemsAsJson:
    def test_a_fault(self, command, capsys):
        assert command("fail", "refused", "--json") == ExitCode.REFUSED
        out, err = capsys.readouterr()
        assert out == ""
        assert json.loads(err) == {
            "schema": "qanat.problem.v1",
            "type": "urn:qanat:error:blocked",
            "title": "it is blocked\x1b[2J",
            "code": "blocked",
            "exit_code": 5,
            "remedy": "Unblock it.",
            "name": "dc1",
        }

    def test_a_config(self, command, capsys):
        command("fail", "config", "--json")
        problem = json.loads(capsys.readouterr().err)
        assert problem["exit_code"] == 3
        assert problem["problems"][0] == {"path": "a.yaml", "line": 3, "key": "x.y", "message": "is wrong"}

    @pytest.mark.parametrize(
        "arguments",
        [["--json", "no-such"], ["fail", "--json"], ["status", "--no-such", "--json"], ["fail", "bad", "--json"]],
    )
    def test_usage(self, command, capsys, arguments):
        assert command(*arguments) == ExitCode.USAGE
        assert json.loads(capsys.readouterr().err)["code"] == "usage"

    def test_after_two_dashes_it_is_no_option(self, command, capsys):
        assert command("fail", "--", "--json", "x") == ExitCode.USAGE
        assert capsys.readouterr().err.startswith("Usage: tool fail")


@pytest.mark.parametrize("arguments", [["no-such"], ["status", "--no-such"], ["fail"]])
def test_usage_for_people(command, capsys, arguments):
    assert command(*arguments) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert err.startswith("Usage: tool")
    assert "Traceback" not in err


def test_help(command, capsys):
    assert command("--help") == ExitCode.OK
    assert "A tool." in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_news():
    program = (
        "import typer\n"
        "from shared.cli import emit, make_app, run\n"
        "app = make_app('tool', 'x')\n"
        "@app.command()\n"
        "def show() -> None:\n"
        "    for _ in range(100000):\n"
        "        emit({}, schema='x', json=True, table='')\n"
        "@app.command()\n"
        "def other() -> None: ...\n"
        "run(app)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_options_of_typer_work_through_the_helpers(capsys):
    app = make_app("tool", "x")

    @app.command()
    def one(count: Annotated[int, typer.Option(min=1)] = 1):
        emit({"count": count}, schema="x", json=False, table=str(count))

    assert invoke(app, ["--count", "3"]) == ExitCode.OK
    assert capsys.readouterr().out == "3\n"
    assert invoke(app, ["--count", "0"]) == ExitCode.USAGE
