"""The commands of `cloud-relay` about identity: init, tokens, certs, connectors, ca, events, backup, restore.

They ask the running relay; while none runs, they work on its state themselves, under a lock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud_relay.cli_call import call, read_relay_config, user_name
from cloud_relay.cli_init import add_init
from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, counted, emit, make_app, note

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit trail.")]
PassphraseOption = Annotated[Path, typer.Option("--passphrase-file", help="A file whose one line encrypts the backup.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Put it in the place of a state that is there.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also if it revives a CA that was given up as compromised.")]
TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="Its short name, as 'tokens list' shows it.")]
FingerprintArgument = Annotated[
    str, typer.Argument(metavar="FINGERPRINT", help="The first 8 digits of its SHA-256, or more.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
ConnectorArgument = Annotated[
    str, typer.Argument(metavar="TENANT/LOCATION/NAME", help="The connector: acme/walldorf/dc1-a.")
]


def add_identity_commands(app: typer.Typer, default: Path) -> None:
    """Give `app` the commands; `default` is the config file's place."""
    add_init(app, default)
    app.add_typer(_tokens(default), name="tokens")
    app.add_typer(_certs(default), name="certs")
    app.add_typer(_connectors(default), name="connectors")
    app.add_typer(_ca(default), name="ca")
    _add_events(app, default)
    _add_backup(app, default)


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
        from shared.units import parse_duration

        try:
            seconds = parse_duration(lifetime)
        except ValueError as error:
            raise CommandError(ExitCode.USAGE, f"--lifetime: {error}") from error
        wanted = None if targets is None else [one.strip() for one in targets.split(",") if one.strip()]
        made = call(config, "tokens-create", connector=connector, lifetime=seconds, targets=wanted)
        if not as_json:
            note(f"Token {made['token']} for {made['connector']}, good once, until {made['expires']}. "
                 "Hand it to 'connector-agent enroll' over a safe channel.")  # fmt: skip
        emit(made, schema="qanat.relay.token.v1", json=as_json, table=made["join_token"])

    @app.command("list")
    def listed(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show the tokens of the last weeks, and what became of them."""
        from cloud_relay import show_identity

        found = call(config, "tokens-list")
        emit(found, schema="qanat.relay.tokens.v1", json=as_json, table=lambda: show_identity.tokens_table(found))

    @app.command("revoke")
    def revoke(token: TokenArgument, config: ConfigOption = default, as_json: JsonOption = False) -> None:
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
        from cloud_relay import show_identity

        found = call(config, "certs-list")
        emit(found, schema="qanat.relay.certs.v1", json=as_json, table=lambda: show_identity.certs_table(found))

    @app.command("show")
    def show(fingerprint: FingerprintArgument, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show one, named by the first digits of its SHA-256."""
        from cloud_relay import show_identity

        found = call(config, "certs-show", fingerprint=fingerprint)
        emit(found, schema="qanat.relay.cert.v1", json=as_json, table=lambda: show_identity.pairs(found))

    @app.command("revoke")
    def revoke(
        name: Annotated[
            str, typer.Argument(metavar="WHOSE", help="A SHA-256's first digits, TENANT/LOCATION/NAME, T/L, or T.")
        ],
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
        emit(done, schema="qanat.relay.revoked.v1", json=as_json, table=lambda: _revoked_text(done))

    @app.command("rotate")
    def rotate(
        connector: Annotated[
            str | None, typer.Argument(metavar="[TENANT/LOCATION/NAME]", help="Whose; else the relay's own.")
        ] = None,
        within: Annotated[float, typer.Option(help="Seconds within which the connector renews.")] = 10.0,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Renew now: the relay's own certificate, or, asked by the relay, that of a connector. No push is lost."""
        if connector is None:
            done = call(config, "certs-rotate")
            before = f"; the one before was good until {done['before']}" if done["before"] else ""
            text = f"The relay's own certificate is new, and good until {done['not_after']}{before}."
        else:
            done = call(config, "certs-rotate", connector=connector, within=within)
            text = f"Asked {done['connector']} to renew within {done['within_s']:.0f} s."
        emit(done, schema="qanat.relay.rotated.v1", json=as_json, table=text)

    return app


def _revoked_text(done: dict[str, Any]) -> str:
    told = f"Revoked {done['scope']} {done['name']}: {counted(len(done['certificates']), 'certificate')} that counted."
    if done["certificates"]:
        return told
    # It may be meant so, as with a CA of one's own; but who revokes in a hurry should see that a name is mistyped.
    return f"{told}\nIf one should have, compare the name with 'cloud-relay certs list'."


# ---------------------------------------------------------------- connectors


def _connectors(default: Path) -> typer.Typer:
    app = make_app("connectors", "Connectors that have joined.")

    @app.command("list")
    def listed(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show all connectors: whether they are attached, and how long their certificates are good."""
        from cloud_relay import show_identity

        found = call(config, "connectors-list")
        emit(
            found, schema="qanat.relay.connectors.v1", json=as_json,
            table=lambda: show_identity.connectors_table(found),
        )  # fmt: skip

    @app.command("show")
    def show(connector: ConnectorArgument, config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Show one, with its certificates."""
        from cloud_relay import show_identity

        found = call(config, "connectors-show", connector=connector)
        emit(found, schema="qanat.relay.connector.v1", json=as_json, table=lambda: show_identity.connector_table(found))

    @app.command("block")
    def block(
        connector: ConnectorArgument, reason: ReasonOption = "", config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:  # fmt: skip
        """Bar a connector by name, whatever it shows: its tunnels end at once, and it gets no certificate."""
        done = call(config, "connectors-block", connector=connector, reason=reason)
        text = f"{done['connector']} is blocked" + ("." if done["changed"] else " already.")
        if not done.get("known", True):  # an older relay does not say it
            # It may be meant so; but who bars one in a hurry should see that the name is mistyped.
            text += "\nNone of this name has joined: if one should have, look at 'cloud-relay connectors list'."
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
        from cloud_relay import show_identity

        found = call(config, "ca-status")
        emit(found, schema="qanat.relay.ca.v1", json=as_json, table=lambda: show_identity.ca_table(found))

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
        from cloud_relay import show_identity

        if compromised and skip:
            raise CommandError(
                ExitCode.USAGE, "--compromised waits for nobody, so there is nobody to skip",
                "Leave --skip out: every connector has to join again.",
            )  # fmt: skip
        done = call(config, "ca-rotate", skip=skip or [], compromised=compromised)
        emit(done, schema="qanat.relay.ca.v1", json=as_json, table=lambda: show_identity.ca_table(done))
        if compromised and not as_json:
            note("Every connector has to join again with a new token. Tokens that ended: "
                 + (", ".join(one["token"] for one in done["tokens_ended"]) or "none") + ".")  # fmt: skip

    @app.command("rollback")
    def rollback(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Go back to the CA of before; possible until the old one is retired."""
        from cloud_relay import show_identity

        done = call(config, "ca-rollback")
        emit(done, schema="qanat.relay.ca.v1", json=as_json, table=lambda: show_identity.ca_table(done))
        if done["tokens_ended"] and not as_json:
            note(
                "Tokens of the CA that goes have ended: "
                + ", ".join(one["token"] for one in done["tokens_ended"])
                + "."
            )

    @app.command("accept-clock")
    def accept_clock(config: ConfigOption = default, as_json: JsonOption = False) -> None:
        """Say that this host's clock is right, after it was wrong: the relay issues nothing before its last event."""
        done = call(config, "ca-accept-clock")
        text = f"The clock counts as right: it is {done['now']}, and the last event was of {done['last_event']}."
        emit(done, schema="qanat.relay.clock.v1", json=as_json, table=text)

    return app


def _add_events(app: typer.Typer, default: Path) -> None:
    @app.command()
    def events(
        after: Annotated[int, typer.Option(help="Only those after this number.", min=0)] = 0,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Show the audit trail: who joined, renewed, was revoked or blocked, and when."""
        from cloud_relay import show_identity

        found = call(config, "events", after=after)
        emit(found, schema="qanat.relay.events.v1", json=as_json, table=lambda: show_identity.events_table(found))
        shown = found["events"][-1]["number"] if found["events"] else found["last"]
        if shown < found["last"] and not as_json:
            note(f"There are {counted(found['last'] - shown, 'more event')}: --after {shown}")


def _add_backup(app: typer.Typer, default: Path) -> None:
    @app.command()
    def backup(
        file: FileArgument, passphrase_file: PassphraseOption, config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:  # fmt: skip
        """Write the relay's identity, keys included, into an encrypted file. The relay may run meanwhile."""
        from cloud_relay.identity.backup import make_backup
        from cloud_relay.identity.office import read_passphrase

        passphrase = read_passphrase(passphrase_file)
        done = asyncio.run(make_backup(read_relay_config(config), file, passphrase or b""))
        holds = f"{counted(done['events'], 'event')}, {counted(done['files'], 'file')}, {done['bytes']} bytes"
        emit(done, schema="qanat.relay.backup.v1", json=as_json, table=f"Wrote {done['file']}: {holds}.")
        if done["without"] and not as_json:
            note(f"Not in it, because not here: {', '.join(done['without'])}. Keep a copy where it is.")

    @app.command()
    def restore(
        file: FileArgument,
        passphrase_file: PassphraseOption,
        replace: ReplaceOption = False,
        force: ForceOption = False,
        config: ConfigOption = default,
        as_json: JsonOption = False,
    ) -> None:
        """Put a backup's identity into this config's state_dir. Connectors come back by themselves; tokens do not."""
        from cloud_relay import show_identity
        from cloud_relay.identity.office import read_passphrase
        from cloud_relay.identity.restore import restore_backup

        passphrase = read_passphrase(passphrase_file) or b""
        relay = read_relay_config(config)
        done = asyncio.run(restore_backup(relay, file, passphrase, replace=replace, force=force, by=user_name()))
        emit(done, schema="qanat.relay.restore.v1", json=as_json, table=lambda: show_identity.restore_text(done))
