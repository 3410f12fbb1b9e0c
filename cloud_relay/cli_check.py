"""`cloud-relay check`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli import CommandError, ConfigOption, JsonOption, counted, credentials_directory, emit

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from cloud_relay.prechecks.run import Facts
    from shared.prechecks import Precheck

LiveOption = Annotated[
    bool,
    typer.Option("--live", help="Try listeners, names, certificates, routes, senders, disk, limits and clock."),
]


def add_check_command(app: typer.Typer, default_config: Path) -> None:
    """Give `app` the command."""

    @app.command()
    def check(live: LiveOption = False, config: ConfigOption = default_config, as_json: JsonOption = False) -> int:
        """Look whether the relay would start with this config, and what in it is doubtful; with --live, how it does.

        Starts and changes nothing. --live asks the running relay, and tries the rest itself.

        Exit codes: 0 nothing failed; 3 the relay would not start with this config; 1 anything else.
        """
        from cloud_relay.doors import require_contexts
        from cloud_relay.identity.own import checked_context
        from cloud_relay.loading import load, warnings_of
        from shared.prechecks import exit_code_of, prechecks_table, prechecks_view

        found = load(config).config
        require_contexts(found, lambda: checked_context(found))
        warnings = [*warnings_of(found), *_doubts(found)]
        tenants = found.tenants
        routes = sum(len(tenant.routes) + len(tenant.tcp_routes) for tenant in tenants.values())
        data: dict[str, Any] = {
            "config": str(config), "tenants": len(tenants), "routes": routes, "warnings": warnings, "live": live,
        }  # fmt: skip
        if not live:
            lines = [f"{config} is good: {counted(len(tenants), 'tenant')}, {counted(routes, 'route')}"]
            lines += [f"warning: {warning['key']}: {warning['message']}" for warning in warnings]
            emit(data, schema="qanat.relay.check.v1", json=as_json, table="\n".join(lines))
            return 0
        rows = run_checks(config, found, warnings)
        data |= prechecks_view(rows)
        emit(data, schema="qanat.relay.check.v1", json=as_json, table=lambda: prechecks_table(rows))
        return exit_code_of(rows)


def _doubts(config: RelayConfig) -> list[dict[str, str]]:
    """What the state of a relay with its own CA gives to think. CommandError if it could not start with it."""
    from cloud_relay.identity.office import doubts, read_passphrase
    from shared.owner import as_owner

    if config.tunnel.tls is not None:
        return []
    file = config.identity.passphrase_file
    # As root reads it for the service. Any other file the service reads with its own rights.
    given = read_passphrase(file) if file is not None and file.parent == credentials_directory() else None
    with as_owner(config.state_dir):
        found = doubts(config, read_passphrase(file) if given is None else given)
    return [{"key": "state_dir", "message": text} for text in found]


def checks_for_diag(path: Path, config: RelayConfig) -> list[Precheck]:
    """Those of --live, for `diag`."""
    from cloud_relay.loading import warnings_of

    return run_checks(path, config, warnings_of(config))


def run_checks(path: Path, config: RelayConfig, warnings: list[dict[str, str]]) -> list[Precheck]:
    """The lines of --live."""
    from cloud_relay.prechecks import run_prechecks
    from shared.logs import setup_logging

    setup_logging("console", "error", io.StringIO())  # what fails is said in the table
    told = [f"{one['key']}: {one['message']}" for one in warnings]
    return run_prechecks(config, told, _gather(path, config))


def _gather(path: Path, config: RelayConfig) -> Facts:
    """What the running relay says; of a CA of its own the certificates also while none runs."""
    from cloud_relay.cli_call import call
    from cloud_relay.cli_senders import list_senders
    from cloud_relay.prechecks.run import Facts
    from shared.commands import ask
    from shared.control import ControlUnreachable

    disabled = {
        (one["tenant"], one["sender"]): str(one["disabled_at"]) for one in list_senders(path) if one["disabled"]
    }
    try:
        status = ask(path, "relay", "GET", "/v1/status")
        return Facts(status, ask(path, "relay", "GET", "/v1/process"), disabled)
    except ControlUnreachable as error:
        silence = error.message
    own = []
    if config.tunnel.tls is None:
        try:
            own = call(path, "certs-list")["own"]
        except CommandError as error:
            silence = f"{silence}; of its CA: {error.message}"
    return Facts(disabled=disabled, own=own, silence=silence)
