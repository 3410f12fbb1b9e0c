"""The command `cloud-relay init`. All that it is told is judged before anything is written."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeVar

import typer

from cloud_relay.cli_call import read_relay_config, user_name
from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, credentials_directory, emit

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from cloud_relay.identity.found import NewConfig

LISTEN: Final = ":8443"
"""Where connectors are told a port that needs rights of its own: something in front is taken to pass it on to here."""

FREE: Final = 1024
"""The least port that everybody may listen at."""

USED: Final = (9000, 9443)
"""Ports that the config's other listeners have."""
STATE_DIR: Final = "/var/lib/qanat-relay"

Given = TypeVar("Given")
Value = TypeVar("Value")


class _Options(NamedTuple):
    """What the config is made of: only of use where there is none yet."""

    advertise: Sequence[str]
    listen: str | None
    trust_domain: str | None
    tenant: str | None
    location: Sequence[str]
    state_dir: Path | None
    passphrase_file: Path | None

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        return [f"--{name.replace('_', '-')}" for name, value in self._asdict().items() if value]


def add_init(app: typer.Typer, default: Path) -> None:
    """Give `app` the command; `default` is the config file's place."""

    @app.command()
    def init(
        advertise: Annotated[
            list[str] | None, typer.Option(help="HOST:PORT by which connectors reach this relay; repeatable.")
        ] = None,
        listen: Annotated[
            str | None,
            typer.Option(
                help="Where the tunnel listener binds.",
                show_default=f"the advertised port; {LISTEN} for one below {FREE}",
            ),
        ] = None,
        trust_domain: Annotated[
            str | None, typer.Option(help="The first part of every identity, for good. Else the first host's name.")
        ] = None,
        name: Annotated[str, typer.Option(help="This relay's own name.")] = "relay-1",
        tenant: Annotated[str | None, typer.Option(help="A first tenant for the config.")] = None,
        location: Annotated[list[str] | None, typer.Option(help="Its locations; repeatable.")] = None,
        state_dir: Annotated[
            Path | None,
            typer.Option(help="A folder of the relay's own; relative to the config.", show_default=STATE_DIR),
        ] = None,
        passphrase_file: Annotated[
            Path | None, typer.Option(help="Encrypt the CA's keys by what this file holds.")
        ] = None,
        if_missing: Annotated[
            bool, typer.Option("--if-missing", help="Use a CA of this trust domain that is there: for each start.")
        ] = False,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Make this relay's own CA, and a config that runs unless there is one. Once, before the first start."""
        options = _Options(advertise or [], listen, trust_domain, tenant, location or [], state_dir, passphrase_file)
        made = _init(config, name, options, if_missing=if_missing)
        emit(made, schema="qanat.relay.init.v1", json=as_json, table=_init_text(made))


def _init(path: Path, name: str, options: _Options, *, if_missing: bool) -> dict[str, Any]:
    from cloud_relay.identity.found import write_config
    from shared.logs import setup_logging
    from shared.names import check_name

    setup_logging("console", "error", io.StringIO())
    _checked("--name", check_name, name)
    if path.exists():
        if options.given():
            raise CommandError(
                ExitCode.USAGE, f"{path} is there and says what {', '.join(options.given())} would say",
                "Leave them out, and edit the config if it is not as it should be.",
            )  # fmt: skip
        return _make_ca(path, name, config_written=False, if_missing=if_missing)
    new = _new_config(options)
    write_config(path, new)
    try:
        return _make_ca(path, name, config_written=True, if_missing=if_missing)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _new_config(options: _Options) -> NewConfig:
    """What the config shall say. CommandError names the option that cannot be."""
    from cloud_relay.identity.found import NewConfig
    from cloud_relay.identity.office import read_passphrase
    from shared.config.model import parse_host_port, parse_listen
    from shared.names import check_name
    from shared.pki.spiffe import check_trust_domain

    if not options.advertise:
        raise CommandError(ExitCode.USAGE, "how do connectors reach this relay? --advertise relay.example.com:443")
    relays = [_checked("--advertise", parse_host_port, one) for one in options.advertise]
    listen = _checked("--listen", parse_listen, options.listen or _listen_for(relays[0].port))
    origin = "--trust-domain" if options.trust_domain else "--trust-domain is needed, the first host's name is none"
    domain = _checked(origin, check_trust_domain, options.trust_domain or relays[0].host)
    if (options.tenant is None) != (not options.location):
        raise CommandError(ExitCode.USAGE, "--tenant and --location are given together or not at all")
    if options.tenant is not None:
        _checked("--tenant", check_name, options.tenant)
    locations = [_checked("--location", check_name, one) for one in dict.fromkeys(options.location)]
    passphrase = _checked("--passphrase-file", _passphrase_file, options.passphrase_file)
    read_passphrase(passphrase.path)
    state_dir = _checked("--state-dir", _check_text, str(options.state_dir or STATE_DIR))
    return NewConfig(state_dir, domain, listen, relays, options.tenant, locations, passphrase.written)


def _listen_for(advertised: int) -> str:
    return f":{advertised}" if advertised >= FREE and advertised not in USED else LISTEN


class _PassphraseFile(NamedTuple):
    """Where it is, and how the config says it."""

    path: Path | None = None
    written: str | None = None


def _passphrase_file(given: Path | None) -> _PassphraseFile:
    from shared.config.model import resolve_credential

    if given is None:
        return _PassphraseFile()
    if str(given).startswith("$"):
        return _PassphraseFile(resolve_credential(str(given), credentials_directory()), str(given))
    return _PassphraseFile(given, _check_text(str(given.absolute())))


def _checked(option: str, check: Callable[[Given], Value], given: Given) -> Value:
    try:
        return check(given)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"{option}: {error}") from error


def _check_text(path: str) -> str:
    if not path.isprintable():
        raise ValueError(f"{path!r} cannot be written into a config")
    return path


def _make_ca(path: Path, name: str, *, config_written: bool, if_missing: bool) -> dict[str, Any]:
    from datetime import UTC, datetime

    from cloud_relay.identity.found import find_ca, found
    from cloud_relay.identity.office import read_passphrase
    from shared.clock import rfc3339

    config = read_relay_config(path)
    # One of another trust domain is left to `found`, which refuses it.
    if if_missing and asyncio.run(find_ca(config.state_dir)) == config.trust_domain:
        return {
            "config": str(path), "config_written": config_written, "ca_made": False, **_addresses(config),
            "state_dir": str(config.state_dir), "trust_domain": config.trust_domain,
        }  # fmt: skip
    passphrase = read_passphrase(config.identity.passphrase_file)
    made = asyncio.run(
        found(config.state_dir, config.trust_domain, name, datetime.now(UTC), passphrase, by=user_name())
    )
    return {
        "config": str(path), "config_written": config_written, "ca_made": True, "state_dir": str(made.state_dir),
        "relay": made.relay, "trust_domain": made.trust_domain, "pin": made.pin,
        "root_not_after": rfc3339(made.root_not_after), **_addresses(config),
    }  # fmt: skip


def _addresses(config: RelayConfig) -> dict[str, Any]:
    """Where the tunnel listener binds, and by which addresses connectors are to reach it."""
    tunnel = config.tunnel
    return {"listen": str(tunnel.listen), "advertise": [str(one) for one in tunnel.advertise]}


def _init_text(made: dict[str, Any]) -> str:
    wrote = f"{'Wrote' if made['config_written'] else 'Used'} {made['config']}.{_mapped_text(made)}"
    if not made["ca_made"]:
        there = f"There is a CA in {made['state_dir']}, of the trust domain {made['trust_domain']}."
        return f"{there}\n{wrote}"
    return (
        f"Made the CA of relay {made['relay']} in {made['state_dir']}; its root is good until "
        f"{made['root_not_after'][:10]}.\n{wrote}\n"
        f"Start the relay: cloud-relay serve --config {made['config']}\n"
        f"Let a connector join: cloud-relay tokens create TENANT/LOCATION/NAME --config {made['config']}"
    )


def _mapped_text(made: dict[str, Any]) -> str:
    """Said where the relay does not listen at a port that connectors are told."""
    port = made["listen"].rpartition(":")[2]
    others = [one for one in made["advertise"] if one.rpartition(":")[2] != port]
    if not others:
        return ""
    there = ", ".join(others)
    return f"\nIt listens at {made['listen']}: something in front has to pass on to there what comes to {there}."
