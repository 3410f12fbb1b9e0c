"""`diag` of both commands: one archive for whoever is to help, under the log's own rules of what may be told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import orjson
import typer

from shared.cli import CommandError, ConfigOption, JsonOption, emit, note
from shared.commands import ask

if TYPE_CHECKING:
    from shared.config import ConfigModel, Loaded
    from shared.prechecks import Precheck

STDOUT: Final = Path("-")

OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write it; '-' is standard output. Else a new file in this folder."),
]
NoChecksOption = Annotated[bool, typer.Option("--no-checks", help="Leave the prechecks out: dial nobody.")]

README: Final = """\
{name} {version}, {at}

config.json     the config as it is on disk, with its defaults; *** is what is not told
status.json     what 'status' says: state, tunnels or sessions, targets or routes, counts
checks.json     prechecks: what was tried just now, and what to do about what failed
recent.jsonl    the last warnings and errors of the running process
tasks.txt       what each task and thread waits for
metrics.txt     what /metrics answers
process.json    descriptors, memory, limits, of the running process
versions.json   Qanat, Python, OpenSSL, libraries

There is no key, password, token, header value or payload in here, and no query of a URL.
"""


class Diagnosed(NamedTuple):
    """What differs: the command's name, what it runs ("relay"), its config, how that is read, and its prechecks."""

    name: str
    kind: str
    default_config: Path
    load: Callable[[Path], Loaded[Any]]
    run_checks: Callable[[Path, Any], list[Precheck]]


class Archive:
    """The entries by name, and what is missing and why."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, value: Any) -> None:
        """A text, or what becomes JSON."""
        text = value if isinstance(value, str) else json.dumps(value, indent=1, default=str, ensure_ascii=False) + "\n"
        self.entries[name] = text.encode("utf-8", "backslashreplace")


def add_diag_command(app: typer.Typer, program: Diagnosed) -> None:
    """Give `app` the command."""

    @app.command()
    def diag(
        output: OutputOption = None,
        no_checks: NoChecksOption = False,
        config: ConfigOption = program.default_config,
        as_json: JsonOption = False,
    ) -> None:
        """Write one archive for whoever is to help: config, status, prechecks, tasks, metrics, recent errors, limits.

        It holds no key, password, token, header value or payload, and is readable by you alone.
        It also works while nothing runs, and says then what is missing.

        In a container: diag --output - > archive.tar.gz
        """
        from shared.archive import write_archive, write_tar

        now = time.time()
        folder = f"{program.name}-diag-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
        archive = gather(program, config, now, with_checks=not no_checks)
        if output == STDOUT:
            write_tar(sys.stdout.buffer, folder, archive.entries, now)
            sys.stdout.buffer.flush()
            return
        path = Path(f"{folder}.tar.gz") if output is None else output
        write_archive(path, folder, archive.entries, now)
        sizes = {name: len(content) for name, content in archive.entries.items()}
        lines = [f"{path}: {', '.join(sizes)}", *(f"missing: {name}: {why}" for name, why in archive.missing.items())]
        data = {"file": str(path.absolute()), "entries": sizes, "missing": archive.missing}
        emit(data, schema=f"qanat.{program.kind}.diag.v1", json=as_json, table="\n".join(lines))


def gather(program: Diagnosed, path: Path, now: float, *, with_checks: bool) -> Archive:
    """Everything that can be had; nothing that fails keeps the rest from being had."""
    from shared.config import ConfigError
    from shared.process_facts import process_facts, versions

    archive = Archive()
    running = _ask(program, path, archive)
    told = versions() if running is None else running["versions"]
    at = time.strftime("%FT%TZ", time.gmtime(now))
    archive.add("README.txt", README.format(name=program.name, version=told["qanat"], at=at))
    try:
        config = program.load(path).config
    except ConfigError as error:
        archive.missing["config.json"] = "the config cannot be used: see config-problems.txt"
        archive.add("config-problems.txt", f"{error}\n")
    except (CommandError, OSError) as error:
        archive.missing["config.json"] = str(error)
    else:
        _add_config(program, path, config, archive, with_checks=with_checks)
    archive.add("versions.json", told)
    if running is not None:
        _add_running(running, archive)
    else:
        archive.add("process.json", {"of": "this command; nothing runs"} | process_facts())
    if archive.missing:
        archive.add("missing.txt", "".join(f"{name}: {why}\n" for name, why in archive.missing.items()))
    return archive


def _ask(program: Diagnosed, path: Path, archive: Archive) -> dict[str, Any] | None:
    try:
        return ask(path, program.kind, "GET", "/v1/diag")
    except Exception as error:  # noqa: BLE001 — a broken config too: whatever it is, the rest is worth having
        why = error.message if isinstance(error, CommandError) else str(error)
        for name in ("status.json", "tasks.txt", "metrics.txt", "recent.jsonl"):
            archive.missing[name] = f"only the running {program.kind} has it: {why}"
        return None


def _add_config(program: Diagnosed, path: Path, config: ConfigModel, archive: Archive, *, with_checks: bool) -> None:
    from shared.config.redact import redacted
    from shared.prechecks import prechecks_view

    archive.add("config.json", redacted(config))
    if not with_checks:
        archive.missing["checks.json"] = "left out, as asked for"
        return
    note("Running the prechecks; --no-checks leaves them out.")
    try:
        archive.add("checks.json", prechecks_view(program.run_checks(path, config)))
    except Exception as error:  # noqa: BLE001 — likewise
        archive.missing["checks.json"] = f"{type(error).__name__}: {error}"


def _add_running(running: dict[str, Any], archive: Archive) -> None:
    from shared.task_dump import render_dump

    archive.add("status.json", running["status"])
    archive.add("process.json", running["process"])
    archive.add("tasks.txt", render_dump(running["tasks"]))
    archive.add("metrics.txt", running["metrics"])
    archive.add("recent.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in running["recent"]).decode())
    if running["forgotten"]:
        archive.missing["recent.jsonl, its start"] = f"{running['forgotten']} older lines were forgotten"
