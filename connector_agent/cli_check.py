"""`connector-agent check`."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector_agent.loading import load, read_every_file, warnings_of
from shared.cli import ConfigOption, JsonOption, counted, emit

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig
    from shared.prechecks import Precheck

OfflineOption = Annotated[bool, typer.Option("--offline", help="Look at the config and its files only; dial nobody.")]
PushOption = Annotated[
    tuple[str, str, str] | None,
    typer.Option(metavar="METHOD TARGET PATH", help="Say too how this push would be judged: POST metrics /api/v1/x."),
]


def add_check_command(app: typer.Typer, default_config: Path) -> None:
    """Give `app` the command."""

    @app.command()
    def check(
        offline: OfflineOption = False,
        push: PushOption = None,
        config: ConfigOption = default_config,
        as_json: JsonOption = False,
    ) -> int:
        """Try all that a push will need: config, identity, the way to each relay, admission, clock, each target.

        Nothing is changed, no push is sent, and a connector that runs is not disturbed.

        Exit codes: 0 nothing failed; 3 the connector would not start; 7 relay or proxy refuse its credentials;
        5 or 4 the push of --push is refused or has no target; 1 anything else.
        """
        from shared.prechecks import exit_code_of, prechecks_table, prechecks_view

        found = load(config).config
        warnings = warnings_of(found)
        if offline:
            read_every_file(found)
        rows = run_checks(found, warnings, push, offline=offline)
        data = {
            "config": str(config), "targets": [target.name for target in found.targets], "warnings": warnings,
            "offline": offline, **prechecks_view(rows),
        }  # fmt: skip
        if not offline or rows:
            emit(data, schema="qanat.connector.check.v1", json=as_json, table=lambda: prechecks_table(rows))
        else:
            lines = [f"{config} is good: {counted(len(found.targets), 'target')}"]
            lines += [f"warning: {one['key']}: {one['message']}" for one in warnings]
            emit(data, schema="qanat.connector.check.v1", json=as_json, table="\n".join(lines))
        return exit_code_of(rows)


def checks_for_diag(_path: Path, config: ConnectorConfig) -> list[Precheck]:
    """All of them, for `diag`."""
    return run_checks(config, warnings_of(config))


def run_checks(
    config: ConnectorConfig,
    warnings: list[dict[str, str]],
    push: tuple[str, str, str] | None = None,
    *,
    offline: bool = False,
) -> list[Precheck]:
    """The lines; offline only that about the push."""
    from connector_agent.prechecks import Asked, judge_push, run_prechecks
    from shared.logs import setup_logging
    from shared.owner import as_owner

    asked = Asked(*push) if push is not None else None
    if offline:
        return judge_push(config, asked) if asked is not None else []
    setup_logging("console", "error", io.StringIO())  # what fails is said in the table
    told = [f"{one['key']}: {one['message']}" for one in warnings]
    with as_owner(config.state_dir):  # root may read what the connector cannot
        return asyncio.run(run_prechecks(config, os.environ, told, asked))
