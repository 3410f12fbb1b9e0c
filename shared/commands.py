"""The commands that both programs have: schema, status, reload, drain, explain, completion, version."""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, counted, emit, make_pairs
from shared.completion import Shell, completion_script
from shared.errors import FAULTS
from shared.units import format_size

if TYPE_CHECKING:
    from shared.config import ConfigModel


PATIENCE: Final = 30.0
"""Seconds for the answer to an ordinary command."""


class Program(NamedTuple):
    """What differs: the command's name, what it runs ("relay"), its config, and its status as tables.

    `load_model` and `load_tables` import what they give only when it is needed.
    """

    name: str
    kind: str
    default_config: Path
    load_model: Callable[[], type[ConfigModel]]
    load_tables: Callable[[], Callable[[dict[str, Any]], RenderableType]]


def add_common_commands(app: typer.Typer, program: Program) -> None:
    """Give `app` the commands."""
    kind, default = program.kind, program.default_config

    @app.command(help="Print the JSON Schema of the config file, for editors.")
    def schema() -> None:
        from shared.config import json_schema

        shown = json_schema(program.load_model())
        emit(shown, schema=shown["$schema"], json=True, table="")

    @app.command(help=f"Show the running {kind}: its tunnels, its state, and what became of pushes.")
    def status(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        answer = ask(config, kind, "GET", "/v1/status")
        emit(answer, schema=f"qanat.{kind}.status.v1", json=as_json, table=lambda: program.load_tables()(answer))

    @app.command(help=f"Let the running {kind} read its config again, and say what changed.")
    def reload(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        answer = ask(config, kind, "POST", "/v1/reload")
        lines = answer["changes"] or ["nothing changed: this config was in force already"]
        emit(answer, schema=f"qanat.{kind}.reload.v1", json=as_json, table="\n".join(lines))

    @app.command(help=f"Let the running {kind} finish the pushes in flight and end, as SIGTERM does.")
    def drain(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        answer = ask(config, kind, "POST", "/v1/drain")
        text = f"draining, {counted(answer['in_flight'], 'push', 'pushes')} in flight"
        emit(answer, schema=f"qanat.{kind}.drain.v1", json=as_json, table=text)

    @app.command(help="Say what an error code means, and what to do: explain no-connector.")
    def explain(
        code: Annotated[str, typer.Argument(metavar="CODE", help="As in a log, a status, or Qanat-Error.")],
        as_json: JsonOption = False,
    ) -> None:
        data, text = explain_fault(code)
        emit(data, schema="qanat.fault.v1", json=as_json, table=text)

    @app.command(help="Show what a profile fills in: ready-made settings for what people push.")
    def profiles(as_json: JsonOption = False) -> None:
        from shared.profiles import PROFILES

        shown = [profile.view() for profile in PROFILES.values()]
        emit({"profiles": shown}, schema="qanat.profiles.v1", json=as_json, table=lambda: profile_blocks(shown))

    @app.command(help=f"Print what makes a shell complete this command: source <({program.name} completion bash)")
    def completion(
        shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The one that is to load it: bash, zsh, fish.")],
    ) -> None:
        sys.stdout.write(f"{completion_script(program.name, shell)}\n")

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
        ] = False,
    ) -> None: ...

    @app.command(help="Print the version.")
    def version(as_json: JsonOption = False) -> None:
        from shared.status import version as installed

        emit({"version": installed()}, schema="qanat.version.v1", json=as_json, table=f"{program.name} {installed()}")


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        from shared.status import version

        emit({}, schema="", json=False, table=f"{context.info_name} {version()}")
        raise typer.Exit


def profile_blocks(profiles: list[dict[str, Any]]) -> RenderableType:
    """The profiles for people, one below the other: side by side they are wider than a terminal."""
    blocks: list[RenderableType] = []
    for one in profiles:
        rows = (
            ("path", f"{one['path']}{' and below' if one['sub_paths'] else ''}" if one["path"] else "-"),
            ("methods", ", ".join(one["methods"])),
            ("bodies", ", ".join(one["content_types"]) or "any"),
            ("headers", ", ".join(one["headers"]) or "all"),
            ("body at most", format_size(one["body"])),
            ("idempotent", "yes" if one["idempotent"] else "no"),
            ("over quota", one["quota_status"]),
            ("senders retry", one["retried"]),
        )
        width = max(len(name) for name, _ in rows)
        indented = [(f"  {name:{width}}", value) for name, value in rows]
        blocks += [*([Text()] if blocks else []), Text(one["profile"], style="bold"), make_pairs(indented)]
    return Group(*blocks)


def explain_fault(code: str) -> tuple[dict[str, Any], str]:
    """An entry of the catalogue, as data and as text. CommandError for an unknown code."""
    fault = FAULTS.get(code)
    if fault is None:
        near = difflib.get_close_matches(code, FAULTS, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "The codes are in docs/errors.md."
        raise CommandError(ExitCode.NOT_FOUND, f"there is no code {code[:80]!r}", hint)
    data = {
        "code": fault.code,
        "origin": fault.origin.value,
        "status": fault.status,
        "title": fault.title,
        "remedy": fault.remedy,
        "retry_after": fault.retry_after,
        "closes": fault.closes,
    }
    answer = f"answered with {fault.status}" if fault.status else "no answer, the connection ends"
    if fault.retry_after:
        answer += ", with Retry-After"
    return data, f"{fault.code} (origin: {fault.origin.value}; {answer})\n{fault.title}\n{fault.remedy}"


def ask(config: Path, kind: str, method: str, url: str, body: Any = None, patience: float = PATIENCE) -> dict[str, Any]:
    """One request to the running program, found by the config's state_dir, however broken the rest of the config is."""
    from shared.config.tree import Text, read_tree
    from shared.control import CONTROL_SOCKET, control_request

    entry = (read_tree(config.absolute()).entries or {}).get("state_dir")
    value = entry.tree.value if entry is not None else None
    if not isinstance(value, Text):
        raise CommandError(ExitCode.CONFIG, f"{config} names no state_dir, where the {kind}'s control socket is")
    return asyncio.run(control_request(value.source.parent / value / CONTROL_SOCKET, method, url, body, patience))
