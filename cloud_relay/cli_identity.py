"""The commands of `cloud-relay` about identity: init, tokens, certs, connectors, ca, events, backup, restore.

They ask the running relay; while none runs, they work on its state themselves, under a lock.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, emit, make_app, make_table, note
from shared.control import ControlUnreachable, as_command_error

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from shared.config import HostPort

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.")]
PassphraseOption = Annotated[Path, typer.Option("--passphrase-file", help="A file whose one line encrypts the backup.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Put it in the place of a state that is there.")]
ConnectorArgument = Annotated[str, typer.Argument(metavar="TENANT/LOCATION/NAME")]


def add_identity_commands(app: typer.Typer, default: Path) -> None:
    """Give `app` the commands; `default` is the config file's place."""
    _add_init(app, default)
    app.add_typer(_tokens(default), name="tokens")
    app.add_typer(_certs(default), name="certs")
    app.add_typer(_connectors(default), name="connectors")
    app.add_typer(_ca(default), name="ca")
    _add_events(app, default)
    _add_backup(app, default)


def call(config: Path, command: str, **asked: Any) -> dict[str, Any]:
    """One command of `identity.desk`: by the running relay, else on its state."""
    from shared.commands import ask

    try:
        return ask(config, "relay", "POST", f"/v1/identity/{command}", asked)
    except ControlUnreachable:
        return asyncio.run(_call_here(config, command, asked))


async def _call_here(path: Path, command: str, asked: dict[str, Any]) -> dict[str, Any]:
    from cloud_relay.config import RelayConfig
    from cloud_relay.identity.desk import Desk, perform
    from cloud_relay.identity.office import open_office
    from cloud_relay.identity.upkeep import Upkeep
    from shared.clock import TrustedClock
    from shared.config import read_config
    from shared.control import ControlFault
    from shared.logs import setup_logging

    setup_logging("console", "error", io.StringIO())  # what fails is said by the command itself
    config = read_config(path, RelayConfig).config
    office = await open_office(config, TrustedClock())
    try:
        names = [address.host for address in config.tunnel.advertise]
        upkeep = Upkeep(office.registrar, office.roll_over, office.own, lambda: names, lambda: None)
        return await perform(Desk(office, lambda: config, upkeep), command, asked)
    except ControlFault as fault:
        raise as_command_error(fault) from fault
    finally:
        await office.close()


# ---------------------------------------------------------------- init


def _add_init(app: typer.Typer, default: Path) -> None:
    @app.command()
    def init(
        advertise: Annotated[
            list[str] | None, typer.Option(help="HOST:PORT by which connectors reach this relay; repeatable.")
        ] = None,
        listen: Annotated[str, typer.Option(help="Where the tunnel listener binds.")] = ":8443",
        trust_domain: Annotated[
            str | None, typer.Option(help="The first part of every identity, for good. Else the first host's name.")
        ] = None,
        name: Annotated[str, typer.Option(help="This relay's own name.")] = "relay-1",
        tenant: Annotated[str | None, typer.Option(help="A first tenant for the config.")] = None,
        location: Annotated[list[str] | None, typer.Option(help="Its locations; repeatable.")] = None,
        state_dir: Annotated[Path, typer.Option(help="A folder of the relay's own.")] = Path("/var/lib/qanat-relay"),
        passphrase_file: Annotated[
            Path | None, typer.Option(help="Encrypt the CA's keys by what this file holds.")
        ] = None,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Make this relay's own CA, and a config that runs unless there is one. Once, before the first start."""
        made = _init(
            config, advertise or [], listen, trust_domain, name, tenant, location or [], state_dir, passphrase_file
        )
        emit(made, schema="qanat.relay.init.v1", json=as_json, table=_init_text(made))


def _init(
    path: Path, advertise: list[str], listen: str, trust_domain: str | None, name: str, tenant: str | None,
    locations: list[str], state_dir: Path, passphrase_file: Path | None,
) -> dict[str, Any]:  # fmt: skip
    from datetime import UTC, datetime

    from cloud_relay.config import RelayConfig
    from cloud_relay.identity.found import found, write_config
    from cloud_relay.identity.office import read_passphrase
    from shared.clock import rfc3339
    from shared.config import read_config
    from shared.logs import setup_logging

    setup_logging("console", "error", io.StringIO())
    is_new = not path.exists()
    try:
        if is_new:
            relays = _addresses(advertise)
            domain = trust_domain or relays[0].host
            if (tenant is None) != (not locations):
                raise CommandError(ExitCode.USAGE, "--tenant and --location are given together or not at all")
            write_config(
                path, state_dir=str(state_dir), trust_domain=domain, listen=listen, advertise=relays, tenant=tenant,
                locations=locations, passphrase_file=str(passphrase_file.absolute()) if passphrase_file else None,
            )  # fmt: skip
        loaded: RelayConfig = read_config(path, RelayConfig).config
        passphrase = read_passphrase(loaded.identity.passphrase_file)
        made = asyncio.run(found(loaded.state_dir, loaded.trust_domain, name, datetime.now(UTC), passphrase))
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, str(error), "Choose one with --trust-domain or --name.") from error
    return {
        "config": str(path), "config_written": is_new, "state_dir": str(made.state_dir), "relay": made.relay,
        "trust_domain": made.trust_domain, "pin": made.pin, "root_not_after": rfc3339(made.root_not_after),
    }  # fmt: skip


def _addresses(advertise: list[str]) -> list[HostPort]:
    from shared.config.model import parse_host_port

    if not advertise:
        raise CommandError(ExitCode.USAGE, "how do connectors reach this relay? --advertise relay.example.com:443")
    try:
        return [parse_host_port(one) for one in advertise]
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--advertise: {error}") from error


def _init_text(made: dict[str, Any]) -> str:
    wrote = "Wrote" if made["config_written"] else "Used"
    return (
        f"Made the CA of relay {made['relay']} in {made['state_dir']}; its root is good until "
        f"{made['root_not_after'][:10]}.\n{wrote} {made['config']}.\n"
        f"Start the relay: cloud-relay serve --config {made['config']}\n"
        f"Let a connector join: cloud-relay tokens create TENANT/LOCATION/NAME --config {made['config']}"
    )


# ---------------------------------------------------------------- tokens


def _tokens(default: Path) -> typer.Typer:
    app = make_app("tokens", "Join tokens: each lets one new connector join, once.")

    @app.command("create")
    def create(
        connector: ConnectorArgument,
        lifetime: Annotated[str, typer.Option(help="How long it may be used: 30m, 2h, 7d.")] = "1h",
        targets: Annotated[str | None, typer.Option(help="What it may announce: names with commas. Else all.")] = None,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Make a token for a new connector. It is shown once, here: only it is written to standard output."""
        import getpass

        from shared.units import parse_duration

        try:
            seconds = parse_duration(lifetime)
        except ValueError as error:
            raise CommandError(ExitCode.USAGE, f"--lifetime: {error}") from error
        wanted = None if targets is None else [one.strip() for one in targets.split(",") if one.strip()]
        made = call(
            config, "tokens-create", connector=connector, lifetime=seconds, targets=wanted, by=getpass.getuser()
        )
        if not as_json:
            note(f"Token {made['token']} for {made['connector']}, good once, until {made['expires']}. "
                 "Hand it to 'connector-agent enroll' over a safe channel.")  # fmt: skip
        emit(made, schema="qanat.relay.token.v1", json=as_json, table=made["join_token"])

    @app.command("list")
    def listed(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show the tokens of the last weeks, and what became of them."""
        found = call(config, "tokens-list")
        columns = ("token", "connector", "state", "created", "expires", "used", "targets", "misuses")
        emit(found, schema="qanat.relay.tokens.v1", json=as_json, table=lambda: _table(columns, found["tokens"]))

    @app.command("revoke")
    def revoke(token: str, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """End an open token. TOKEN is its short name, as 'tokens list' shows it."""
        done = call(config, "tokens-revoke", token=token)
        text = f"Token {done['token']} is {done['state']}."
        emit(done, schema="qanat.relay.token.v1", json=as_json, table=text)

    return app


# ---------------------------------------------------------------- certificates


def _certs(default: Path) -> typer.Typer:
    app = make_app("certs", "Certificates: the relay's own, and those that connectors have got.")

    @app.command("list")
    def listed(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show all certificates: the relay's own first."""
        found = call(config, "certs-list")
        emit(found, schema="qanat.relay.certs.v1", json=as_json, table=lambda: _certs_table(found))

    @app.command("show")
    def show(fingerprint: str, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show one, named by the first digits of its SHA-256."""
        found = call(config, "certs-show", fingerprint=fingerprint)
        emit(found, schema="qanat.relay.cert.v1", json=as_json, table=lambda: _pairs(found))

    @app.command("revoke")
    def revoke(
        name: Annotated[str, typer.Argument(help="A SHA-256's first digits, TENANT/LOCATION/NAME, T/L, or T.")],
        scope: Annotated[str | None, typer.Option(help="certificate, connector, location or tenant.")] = None,
        reason: ReasonOption = "",
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """End what was issued until now, and the tunnels that stand on it; a new join token lets a connector back."""
        chosen = scope or {2: "connector", 1: "location"}.get(name.count("/"))
        if chosen is None:
            raise CommandError(
                ExitCode.USAGE, f"{name[:80]!r} may be a certificate or a tenant",
                "Say which: --scope certificate, or --scope tenant.",
            )  # fmt: skip
        done = call(config, "certs-revoke", scope=chosen, name=name, reason=reason)
        text = f"Revoked {done['scope']} {done['name']}: {len(done['certificates'])} certificates that were good."
        emit(done, schema="qanat.relay.revoked.v1", json=as_json, table=text)

    @app.command("rotate")
    def rotate(
        connector: Annotated[str | None, typer.Argument(metavar="[TENANT/LOCATION/NAME]")] = None,
        within: Annotated[float, typer.Option(help="Seconds within which the connector renews.")] = 10.0,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Renew now: the relay's own certificate, or, asked by the relay, that of a connector. No push is lost."""
        if connector is None:
            done = call(config, "certs-rotate")
            text = (
                f"The relay's own certificate was good until {done['before']}, the new one until {done['not_after']}."
            )
        else:
            done = call(config, "certs-rotate", connector=connector, within=within)
            text = f"Asked {done['connector']} to renew within {done['within_s']:.0f} s."
        emit(done, schema="qanat.relay.rotated.v1", json=as_json, table=text)

    return app


# ---------------------------------------------------------------- connectors


def _connectors(default: Path) -> typer.Typer:
    app = make_app("connectors", "Connectors that have joined.")

    @app.command("list")
    def listed(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show all connectors: whether they are attached, and how long their certificates are good."""
        found = call(config, "connectors-list")
        columns = ("connector", "state", "tunnels", "not_after", "generation", "targets", "reason")
        emit(
            found, schema="qanat.relay.connectors.v1", json=as_json, table=lambda: _table(columns, found["connectors"])
        )

    @app.command("show")
    def show(connector: ConnectorArgument, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show one, with its certificates."""
        found = call(config, "connectors-show", connector=connector)
        emit(found, schema="qanat.relay.connector.v1", json=as_json, table=lambda: _connector_table(found))

    @app.command("block")
    def block(
        connector: ConnectorArgument, reason: ReasonOption = "", config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:  # fmt: skip
        """Bar a connector by name, whatever it shows: its tunnels end at once, and it gets no certificate."""
        done = call(config, "connectors-block", connector=connector, reason=reason)
        text = f"{done['connector']} is blocked" + ("." if done["changed"] else " already.")
        emit(done, schema="qanat.relay.block.v1", json=as_json, table=text)

    @app.command("unblock")
    def unblock(connector: ConnectorArgument, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Let a blocked connector in again; what was revoked stays revoked."""
        done = call(config, "connectors-unblock", connector=connector)
        text = f"{done['connector']} is not blocked" + (" any more." if done["changed"] else ".")
        emit(done, schema="qanat.relay.block.v1", json=as_json, table=text)

    return app


# ---------------------------------------------------------------- the CA


def _ca(default: Path) -> typer.Typer:
    app = make_app("ca", "The relay's CA, and its roll-over.")

    @app.command("status")
    def status(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show the CA, how far a roll-over is, and for whom it waits."""
        found = call(config, "ca-status")
        emit(found, schema="qanat.relay.ca.v1", json=as_json, table=lambda: _ca_table(found))

    @app.command("rotate")
    def rotate(
        skip: Annotated[
            list[str] | None, typer.Option(help="Do not wait for TENANT/LOCATION/NAME: it may have to join anew.")
        ] = None,
        compromised: Annotated[
            bool, typer.Option("--compromised", help="The keys are in other hands: trust nothing of the old CA.")
        ] = False,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Begin to roll the CA over. The relay goes on by itself, step by step; 'ca status' says for whom it waits."""
        done = call(config, "ca-rotate", skip=skip or [], compromised=compromised)
        emit(done, schema="qanat.relay.ca.v1", json=as_json, table=lambda: _ca_table(done))
        if compromised and not as_json:
            note("Every connector has to join again with a new token. Tokens that ended: "
                 + (", ".join(one["token"] for one in done["tokens_ended"]) or "none") + ".")  # fmt: skip

    @app.command("rollback")
    def rollback(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Go back to the CA of before; possible until the old one is retired."""
        done = call(config, "ca-rollback")
        emit(done, schema="qanat.relay.ca.v1", json=as_json, table=lambda: _ca_table(done))

    return app


def _add_events(app: typer.Typer, default: Path) -> None:
    @app.command()
    def events(
        after: Annotated[int, typer.Option(help="Only those after this number.")] = 0,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Show the audit trail: who joined, renewed, was revoked or blocked, and when."""
        found = call(config, "events", after=after)
        emit(found, schema="qanat.relay.events.v1", json=as_json, table=lambda: _events_table(found["events"]))


def _add_backup(app: typer.Typer, default: Path) -> None:
    @app.command()
    def backup(
        file: Path, passphrase_file: PassphraseOption, config: ConfigOption = default, as_json: JsonOption = False
    ) -> None:
        """Write the relay's identity, keys included, into an encrypted file. The relay may run meanwhile."""
        from cloud_relay.identity.backup import make_backup
        from cloud_relay.identity.office import read_passphrase

        passphrase = read_passphrase(passphrase_file)
        done = make_backup(_config(config), file, passphrase or b"")
        text = f"Wrote {done['file']}: {done['events']} events, {done['files']} files, {done['bytes']} bytes."
        emit(done, schema="qanat.relay.backup.v1", json=as_json, table=text)

    @app.command()
    def restore(
        file: Path,
        passphrase_file: PassphraseOption,
        replace: Annotated[
            bool, typer.Option("--replace", help="Put it in the place of a state that is there.")
        ] = False,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Put a backup's identity into this config's state_dir. Connectors come back by themselves; tokens do not."""
        from cloud_relay.identity.backup import restore_backup
        from cloud_relay.identity.office import read_passphrase

        passphrase = read_passphrase(passphrase_file)
        done = asyncio.run(restore_backup(_config(config), file, passphrase or b"", replace=replace))
        emit(done, schema="qanat.relay.restore.v1", json=as_json, table=lambda: _restore_text(done))


def _config(path: Path) -> RelayConfig:
    from cloud_relay.config import RelayConfig
    from shared.config import read_config

    return read_config(path, RelayConfig).config


# ---------------------------------------------------------------- tables


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    return make_table(tuple(column.replace("_", " ") for column in columns),
                      [tuple(_shown(row[column]) for column in columns) for row in rows])  # fmt: skip


def _pairs(found: dict[str, Any]) -> Any:
    return make_table(("", ""), [(name.replace("_", " "), _shown(value)) for name, value in found.items()
                                 if not isinstance(value, list) or not value or isinstance(value[0], str)])  # fmt: skip


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    return str(value)


def _certs_table(found: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [one | {"fingerprint": one["fingerprint"][:16]} for one in found["certificates"]]
    columns = ("fingerprint", "connector", "standing", "not_after", "generation", "via", "revoked")
    return Group(_table(("kind", "name", "not_after", "warning"), found["own"]), _table(columns, rows))


def _connector_table(found: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [one | {"fingerprint": one["fingerprint"][:16]} for one in found["certificates"]]
    columns = ("fingerprint", "standing", "not_before", "not_after", "generation", "via", "revoked", "reason")
    return Group(_pairs(found), _table(columns, rows))


def _ca_table(found: dict[str, Any]) -> Any:
    from rich.console import Group

    columns = ("generation", "is_active", "pin", "root_not_after", "issuing_not_after", "root_key_here", "connectors")
    rows = [one | {"pin": one["pin"][:16]} for one in found["generations"]]
    parts: list[Any] = [f"Trust domain {found['trust_domain']}, relay {found['relay']}, {_STAGES[found['stage']]}"]
    parts.append(_table(columns, rows))
    if found["waits_for"]:
        parts.append("Waiting for these; whoever does not come is no longer waited for after 'until':")
        parts.append(_table(("connector", "tunnels", "until"), found["waits_for"]))
    elif found["stage"] == "switched" and found["tunnels_on_old"]:
        parts.append(f"Waiting for {found['tunnels_on_old']} tunnels that still use a certificate of the old one.")
    return Group(*parts)


_STAGES = {
    "steady": "no roll-over under way.",
    "published": "roll-over: the new root is published, the old one signs.",
    "switched": "roll-over: the new root signs, connectors renew.",
}


def _events_table(events: list[dict[str, Any]]) -> Any:
    fixed = {"number", "at", "kind"}
    rows = [
        (
            str(one["number"]), one["at"], one["kind"],
            " ".join(f"{name}={_shown(value)}" for name, value in one.items() if name not in fixed and value),
        )
        for one in events
    ]  # fmt: skip
    return make_table(("number", "at", "kind", ""), rows)


def _restore_text(done: dict[str, Any]) -> str:
    lines = [f"Restored {done['events']} events of {done['backup_at']} into {done['state_dir']}."]
    lines += [f"Lost: {one}" for one in done["lost"]]
    if not done["lost"]:
        lines.append("Revocations, blocks and changes made after that time are lost: make them again.")
    lines.append("Open join tokens do not count any more: make new ones.")
    return "\n".join(lines)
