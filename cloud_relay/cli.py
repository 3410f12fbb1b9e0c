"""The command `cloud-relay`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from cloud_relay.cli_check import add_check_command, checks_for_diag
from cloud_relay.cli_identity import add_identity_commands
from cloud_relay.cli_senders import senders_app
from cloud_relay.loading import load
from shared.cli import (
    CommandError,
    ConfigOption,
    ExitCode,
    JsonOption,
    emit,
    make_app,
    make_pairs,
    note,
    run,
)
from shared.cli_diag import Diagnosed, add_diag_command
from shared.commands import Program, add_common_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cloud_relay.config import RelayConfig

DEFAULT_CONFIG: Final = Path("/etc/qanat/relay.yaml")

UPGRADE_PATIENCE: Final = 1800.0
"""Seconds for an upgrade: with tens of thousands of connectors it takes minutes until all have new tunnels."""

app = make_app(
    "cloud-relay", "The relay: takes pushes from senders and hands them to connectors in data centers.", is_root=True
)
secrets_app = make_app("secrets", "Make and hash what senders prove themselves with.")
routes_app = make_app("routes", "Ask where a push would go.")
app.add_typer(secrets_app, name="secrets")
app.add_typer(routes_app, name="routes")
app.add_typer(senders_app, name="senders")


def main() -> NoReturn:
    """Run the command line and exit."""
    run(app)


@app.command()
def serve(
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that serve side by side, for more than one core's work.")
    ] = 1,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Run the relay until SIGTERM. SIGHUP, or a change of its files, reloads the config."""
    from cloud_relay.handover.passing import Passed
    from cloud_relay.handover.serve import serve_config
    from shared.launch import stay_for_children

    passed = Passed.from_environment(os.environ)
    launcher = serve_config(config, passed, workers)
    if launcher.has_children and passed is None:
        # Whoever started this process takes its end for the relay's; who took over from it is still there.
        raise typer.Exit(stay_for_children())


@app.command()
def upgrade(
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on if connectors do not come to the new process within their time.")
    ] = False,
    is_awaited: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With several workers: return when all are replaced, or at once.")
    ] = True,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let the running relay hand over to a new process, of what is installed now, with its config read anew.

    No push is lost. Where the new process cannot take over, the old one serves
    on, and this says why. Several workers are replaced one after the other.
    """
    from cloud_relay.cli_upgrade import follow
    from cloud_relay.show import upgrade_text
    from shared.commands import ask

    answer = ask(config, "relay", "POST", "/v1/upgrade", {"anyway": anyway}, UPGRADE_PATIENCE)
    if is_awaited and "workers" in answer:
        answer = follow(answer, lambda: ask(config, "relay", "GET", "/v1/upgrade"), note)
    emit(answer, schema="qanat.relay.upgrade.v1", json=as_json, table=lambda: upgrade_text(answer))


def _model() -> type[RelayConfig]:
    from cloud_relay.config import RelayConfig

    return RelayConfig


def _tables() -> Callable[[dict[str, Any]], RenderableType]:
    from cloud_relay.show import status_tables

    return status_tables


add_check_command(app, DEFAULT_CONFIG)
add_diag_command(app, Diagnosed("cloud-relay", "relay", DEFAULT_CONFIG, load, checks_for_diag))
add_common_commands(app, Program("cloud-relay", "relay", DEFAULT_CONFIG, _model, _tables))


@secrets_app.command("new")
def secrets_new(as_json: JsonOption = False) -> None:
    """Make a secret for a sender, and the hash of it for the config. The secret is shown once, here."""
    from shared.secrets import hash_secret, new_secret

    secret = new_secret()
    data = {"secret": secret, "hash": hash_secret(secret)}
    table = make_pairs([("for the sender", secret), ("for the config", data["hash"])])
    emit(data, schema="qanat.secret.v1", json=as_json, table=table)


@secrets_app.command("hash")
def secrets_hash(
    generated: Annotated[
        bool, typer.Option("--generated", help="It was made by a machine and has 128 random bits or more: use SHA-256.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Hash a password for the config. It is read from standard input, or asked for, never an argument."""
    from shared.secrets import hash_password, hash_secret

    secret = _read_secret()
    if generated and len(secret) < 22:
        raise CommandError(ExitCode.REFUSED, "a generated secret has at least 22 characters", "Leave --generated out.")
    try:
        hashed = hash_secret(secret) if generated else hash_password(secret)
    except ValueError as error:
        raise CommandError(ExitCode.REFUSED, str(error)) from error
    emit({"hash": hashed}, schema="qanat.hash.v1", json=as_json, table=hashed)


@routes_app.command("test")
def routes_test(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="As the sender would use it: POST. CONNECT for TCP.")],
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="As the sender would push to: https://push.example.com/sap/frun, tcp://…:514, tls://…:6514",
        ),
    ],
    source: Annotated[
        str | None, typer.Option(help="For TCP routes: also say whether this address may connect.")
    ] = None,
    sender: Annotated[str | None, typer.Option(help="Also say whether this sender may use the route.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say which route of the config a push would take, and to which target. Sends nothing."""
    from cloud_relay.show_routes import find_route, find_tcp_route, route_table, tcp_route_table

    if url.startswith(("tcp://", "tls://")):
        way = find_tcp_route(load(config).config, url, source)
        emit(way, schema="qanat.relay.tcp-route.v1", json=as_json, table=lambda: tcp_route_table(way))
        return
    found = find_route(load(config).config, method, url, sender)
    emit(found, schema="qanat.relay.route.v1", json=as_json, table=lambda: route_table(found))


add_identity_commands(app, DEFAULT_CONFIG)


def _read_secret() -> str:
    import sys

    if sys.stdin.isatty():
        return str(typer.prompt("Secret", hide_input=True, confirmation_prompt=True, err=True))
    text = sys.stdin.read(4096).removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise CommandError(ExitCode.USAGE, "standard input must hold the secret, in one line")
    note("Hashed what standard input held, without the line's end.")
    return text
