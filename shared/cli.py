"""What both commands share: output for people and for scripts, errors that say what to do, and exit codes.

A command is a typer function that gathers a dict and calls `emit`; it raises `CommandError` (or lets a `ConfigError`
pass), and `run` turns that into one message on stderr, or with --json into one problem object, and the exit code.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast

import orjson
import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from shared.completion import completion_variable, prepare_answers
from shared.config import ConfigError, ConfigModel, Edition, Loaded, read_config
from shared.exits import CommandError, ExitCode
from shared.journal import leads_to_journal, with_priority

__all__ = [
    "CommandError",
    "ConfigOption",
    "ExitCode",
    "JsonOption",
    "counted",
    "credentials_directory",
    "emit",
    "expected_fault",
    "invoke",
    "is_journal",
    "make_app",
    "make_pairs",
    "make_table",
    "note",
    "read_own_config",
    "run",
    "to_json",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object; errors as problem JSON on stderr.")]
# What cannot be read is told by whoever reads it, with the exit code of a config that cannot be used.
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The config file.", show_default=True, readable=False)
]

Model = TypeVar("Model", bound=ConfigModel)

_INTERRUPTED: Final = 130
_EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the config is not good; 4 not found; 5 refused, or in conflict; "
    "6 no daemon answers; 7 the other side refuses a credential."
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_UNBOUNDED: Final = 10_000
"""Columns where nobody looks: a pipe must get whole values, not some cut to 80 columns."""

_EXPECTED_ERRNO: Final = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EROFS, errno.ENOSPC, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
}

# typer < 0.20 stands on click, later ones on a copy of their own; both have this class above BadParameter.
_UsageError: Final = cast("type[Exception]", typer.BadParameter.__mro__[1])


def make_app(name: str, help_text: str, *, is_root: bool = False) -> typer.Typer:
    """A typer application as both commands want it: no completion installer, no decorated tracebacks, -h.

    `is_root`: the command itself, which tells its exit codes.
    """
    return typer.Typer(
        name=name,
        help=help_text,
        epilog=_EXIT_CODES if is_root else None,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def emit(
    data: Mapping[str, Any],
    *,
    schema: str,
    json: bool,
    table: RenderableType | Callable[[], RenderableType],
) -> None:
    """Print a result on stdout: with `json` one object that names its schema, else what `table` is or returns.

    `data` may hold datetimes with a zone (printed as RFC 3339 in UTC), dataclasses, enums and paths. A text is printed
    as it is, never as rich markup.
    """
    if json:
        sys.stdout.write(to_json({"schema": schema, **data}))
        sys.stdout.flush()
        return
    shown = table() if callable(table) else table
    width = None if sys.stdout.isatty() else _UNBOUNDED
    Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=isinstance(shown, str)).print(shown)
    sys.stdout.flush()


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table. Cells are shown as text without markup or control characters; a rich `Text` keeps its style."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return table


def make_pairs(rows: Iterable[tuple[object, object]]) -> Table:
    """Names, and beside each what is to be said of it, broken between words where the line ends."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def printable(value: object) -> str:
    """A text that moves no cursor and breaks no line of a terminal; None is shown as "-"."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", "-" if value is None else str(value))


def counted(count: int, singular: str, plural: str = "") -> str:
    """ "1 route", "2 routes"; `plural` where an s does not make it."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def read_own_config(path: Path, model: type[Model], edition: Edition | None = None) -> Loaded[Model]:
    """The config that a command was given, with the credentials that the environment names. ConfigError.

    `edition` takes the place of its files.
    """
    return read_config(path, model, credentials_directory(), edition)


def credentials_directory() -> Path | None:
    """Where the service manager has put this service's secrets, if it has."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def is_journal() -> bool:
    """Whether standard error leads to systemd's journal."""
    return leads_to_journal(os.environ.get("JOURNAL_STREAM", ""))


def note(message: str) -> None:
    """A remark for people on stderr, beside the result."""
    sys.stderr.write(f"{printable(message)}\n")
    sys.stderr.flush()


def to_json(data: Any) -> str:
    """One line of JSON."""
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(data, option=options, default=str).decode()


def run(app: typer.Typer) -> NoReturn:
    """The `main` of both commands: run with the process's arguments and exit."""
    sys.exit(invoke(app, sys.argv[1:]))


def invoke(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; every expected fault is told on stderr, without a traceback."""
    if (name := app.info.name) and completion_variable(name) in os.environ:
        prepare_answers()
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        result = typer.main.get_command(app).main(args=list(arguments), prog_name=app.info.name, standalone_mode=False)
    except BrokenPipeError:
        # Whoever read our output went away, as `| head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (typer.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except _UsageError as error:
        return _tell_usage(error, as_json)
    except Exception as error:  # noqa: BLE001 — the outermost frame: whatever it is, it becomes an exit code
        return _tell(expected_fault(error), as_json, error)
    return result if isinstance(result, int) else ExitCode.OK


def expected_fault(error: Exception) -> CommandError | None:
    """The fault that a command ends with; None for what nobody expected."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, ConfigError):
        count = len(error.problems)
        places = [{**problem._asdict(), "path": str(problem.path)} for problem in error.problems]
        message = f"the config has {count} problems" if count > 1 else "the config has a problem"
        remedy = "Name another one with --config." if _is_missing(error) else ""
        return CommandError(ExitCode.CONFIG, message, remedy, problems=places, detail=str(error))
    if isinstance(error, OSError) and error.errno in _EXPECTED_ERRNO:
        where = f"{error.filename}: " if error.filename else ""
        return CommandError(ExitCode.FAILED, f"{where}{error.strerror}")
    return None


def _is_missing(error: ConfigError) -> bool:
    """Whether what is wrong with the config is that the file itself is not there."""
    (problem, *others) = error.problems
    return not others and not problem.key and problem.line is None and isinstance(error.__cause__, FileNotFoundError)


def _tell(fault: CommandError | None, as_json: bool, error: Exception) -> int:
    if fault is None:
        trace = "".join(traceback.format_exception(error))
        message = f"{type(error).__name__}: {error}"
        remedy = "This is a fault of the program itself; please report it with these lines."
        fault = CommandError(ExitCode.FAILED, message, remedy, "internal-error", detail=trace)
    if as_json:
        sys.stderr.write(to_json(fault.problem()))
    else:
        lines = [f"error: {printable(fault.message)}"]
        lines += [f"  {printable(line)}" for line in str(fault.extra.get("detail", "")).splitlines()]
        lines += [printable(fault.remedy)] if fault.remedy else []
        text = "\n".join(lines) + "\n"
        sys.stderr.write(with_priority(text, "error") if is_journal() else text)
    return fault.exit_code


def _tell_usage(error: Exception, as_json: bool) -> int:
    if as_json:
        message = str(getattr(error, "format_message", error.__str__)())
        sys.stderr.write(to_json(CommandError(ExitCode.USAGE, message, "See --help.").problem()))
    else:
        error.show()  # type: ignore[attr-defined] # both kinds of click have it; see _UsageError
    return ExitCode.USAGE
