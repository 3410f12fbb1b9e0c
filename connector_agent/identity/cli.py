"""`connector-agent enroll` and `connector-agent certs`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, emit, make_app, note, read_own_config
from shared.commands import ask

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig
    from connector_agent.identity.join import Joined
    from connector_agent.identity.store import IdentityStore
    from shared.pki.join_token import JoinToken

MAKE_ANOTHER: Final = "Make a new one if it is lost: it counts only once."
MAX_INPUT: Final = 16 * 1024
"""Characters that are read where a token should be."""

TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="A file with the join token; else standard input, or a prompt.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Take the place of the identity that is there.")]


def add_identity_commands(app: typer.Typer, default_config: Path) -> None:
    """Give `app` the commands."""
    certs = make_app("certs", "The connector's certificates.")

    @app.command(help="Join: turn a token of 'cloud-relay tokens create' into this connector's identity.")
    def enroll(
        token_file: TokenOption = None,
        config: ConfigOption = default_config,
        replace: ReplaceOption = False,
        as_json: JsonOption = False,
    ) -> None:
        token = read_given_token(token_file)
        is_new = not config.exists()
        say = (lambda _: None) if as_json else note  # a script gets one object, and on stderr the problem alone
        if is_new:
            write_config(config, token, default_config)
            say(f"Wrote {config}: add what this connector should expose under targets.")
        data = enroll_with(config, token, replace=replace, say=say)
        lines = [
            f"Joined {data['relay']} as {data['id']}.",
            f"The certificate is valid until {data['not_after']}, and renews itself while the connector runs.",
            "Now: " + ("add targets to the config, then " if is_new else "") + f"connector-agent run --config {config}",
        ]
        shown = {**data, "config": str(config), "config_written": is_new}
        emit(shown, schema="qanat.connector.enroll.v1", json=as_json, table="\n".join(lines))

    @certs.command(help="Show the identity, the roots and every certificate in use, also while the connector is down.")
    def show(config: ConfigOption = default_config, as_json: JsonOption = False) -> None:
        from connector_agent.show import certs_table

        data = certificates(config)
        emit(data, schema="qanat.connector.certs.v1", json=as_json, table=lambda: certs_table(data))

    @certs.command(help="Let the running connector renew its certificate now.")
    def rotate(config: ConfigOption = default_config, as_json: JsonOption = False) -> None:
        answer = ask(config, "connector", "POST", "/v1/certs/rotate")
        text = (
            f"Renewed {answer['id']}: valid until {answer['new_not_after']} (before: {answer['old_not_after']}).\n"
            "New tunnels take the place of the old ones; no push is lost."
        )
        emit(answer, schema="qanat.connector.rotate.v1", json=as_json, table=text)

    app.add_typer(certs)


def read_given_token(path: Path | None) -> JoinToken:
    """From the file, standard input, or a prompt that shows nothing; never from the command line, where all can see."""
    from connector_agent.wiring import read_token
    from shared.pki.files import PkiError
    from shared.pki.join_token import parse_join_token

    try:
        if path is not None:
            return read_token(path)
        if sys.stdin.isatty():
            return parse_join_token(str(typer.prompt("Join token", hide_input=True)))
        given = sys.stdin.read(MAX_INPUT)
        if not given.strip():
            raise CommandError(
                ExitCode.CREDENTIAL, "no join token came by standard input",
                "See what 'cloud-relay tokens create' said, or name a file: --token-file.", "token-unreadable",
            )  # fmt: skip
        return parse_join_token(given)
    except PkiError as error:
        if isinstance(error.__cause__, ValueError):  # the file holds something else, as standard input may
            raise CommandError(ExitCode.CREDENTIAL, str(error), MAKE_ANOTHER, "token-unreadable") from error
        raise CommandError(ExitCode.CONFIG, str(error)) from error
    except ValueError as error:
        raise CommandError(ExitCode.CREDENTIAL, str(error), MAKE_ANOTHER, "token-unreadable") from error


def write_config(path: Path, token: JoinToken, default_config: Path) -> None:
    """A config that runs and exposes nothing. CommandError where it cannot be written."""
    from shared.pki.files import write_public

    # Beside the default config, connector-berlin.yaml has a state of its own: that of the unit qanat-connector@berlin.
    is_service = path.parent == default_config.parent and path.stem.startswith(default_config.stem)
    state = f"/var/lib/qanat-{path.stem}" if is_service else "state/connector"
    relays = ", ".join(f'"wss://{relay}"' for relay in token.relays)
    text = (
        "# Written by 'connector-agent enroll'. 'connector-agent schema' lists everything that may stand here.\n"
        f"relays: [{relays}]\n"
        f"state_dir: {state}\n"
        "# What this connector exposes; nothing else can be reached through it. An example:\n"
        "#   - name: metrics\n"
        "#     url: http://127.0.0.1:8428\n"
        "#     allow: [{methods: [POST], path: /api/v1/write}]\n"
        "targets: []\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_public(path, text.encode())
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"cannot write {path}: {error.strerror or error}",
            "Run this as root, or name a config of your own: --config connector.yaml. The token was not used.",
        ) from error  # fmt: skip


def enroll_with(path: Path, token: JoinToken, *, replace: bool, say: Any) -> dict[str, Any]:
    """Redeem the token into the config's state_dir. CommandError says what is in the way."""
    from connector_agent.config import ConnectorConfig
    from connector_agent.identity.store import IdentityStore
    from shared.owner import as_owner

    config = read_own_config(path, ConnectorConfig).config
    if config.tls is not None:
        raise CommandError(
            ExitCode.REFUSED, f"{path} has tls: this connector's certificate comes from your own CA",
            "Drop tls from the config to let the relay be the CA.", "own-ca",
        )  # fmt: skip
    store = IdentityStore(config.state_dir)
    refuse_second(store, replace=replace)
    relays = config.relay_addresses() or list(token.relays)
    say(f"Joining as {token.identity} at {', '.join(map(str, relays))}.")
    with as_owner(config.state_dir):  # root's, too, are files that the connector's user can read
        joined = asyncio.run(_join(config, store, token))
    return {
        "id": str(joined.identity.id),
        "relay": str(joined.relay),
        "not_after": f"{joined.identity.certificate.not_valid_after_utc:%FT%TZ}",
        "state_dir": str(config.state_dir),
    }


def refuse_second(store: IdentityStore, *, replace: bool) -> None:
    """An identity that is there is not overwritten by the way."""
    from shared.pki.files import PkiError

    try:
        identity = store.load_identity()
    except PkiError as error:
        if replace:
            return
        raise CommandError(ExitCode.REFUSED, str(error), "Or enrol with --replace.", "identity-unusable") from error
    if identity is not None and not replace:
        raise CommandError(
            ExitCode.REFUSED, f"{store.folder} holds the identity {identity.id} already, valid until "
            f"{identity.certificate.not_valid_after_utc:%FT%TZ}",
            "It renews itself. To replace it all the same: stop the connector, and enrol with --replace.", "joined",
        )  # fmt: skip


async def _join(config: ConnectorConfig, store: IdentityStore, token: JoinToken) -> Joined:
    from connector_agent.handshake import DialError
    from connector_agent.identity.join import REFUSALS
    from connector_agent.identity.store import StoreError
    from connector_agent.proxy import ProxyError
    from connector_agent.wiring import choose_proxies, make_joiner
    from shared.clock import TrustedClock
    from shared.pki.files import PkiError

    try:
        joiner = make_joiner(store, TrustedClock(), choose_proxies(config, os.environ))
        return await joiner.join(token, config.relay_addresses() or token.relays)
    except DialError as error:
        refused = error.code in REFUSALS
        remedy = error.remedy if refused else f"{error.remedy} The token was not used up: try again.".lstrip()
        code = ExitCode.CREDENTIAL if refused else ExitCode.FAILED
        raise CommandError(code, error.text, remedy, error.code) from error
    except (StoreError, PkiError, ProxyError) as error:
        raise CommandError(ExitCode.FAILED, str(error)) from error


def certificates(path: Path) -> dict[str, Any]:
    """Of the running connector, or from the files while it is down."""
    from shared.control import ControlUnreachable

    try:
        return ask(path, "connector", "GET", "/v1/certs")
    except ControlUnreachable:
        return _offline(path)


def _offline(path: Path) -> dict[str, Any]:
    from datetime import UTC, datetime

    from connector_agent.build import read_materials, target_certificates
    from connector_agent.certificates import warnings
    from connector_agent.config import ConnectorConfig
    from connector_agent.credentials import Credentials
    from connector_agent.identity.manager import ManagedIdentity
    from connector_agent.identity.store import IdentityStore
    from shared.clock import TrustedClock
    from shared.pki.files import PkiError

    config = read_own_config(path, ConnectorConfig).config

    async def look() -> dict[str, Any]:
        identity = (
            ManagedIdentity(IdentityStore(config.state_dir), TrustedClock())
            if config.tls is None
            else Credentials(config.tls.certificate, config.tls.key, config.tls.ca)
        )
        every = identity.certificates() + target_certificates(read_materials(config))
        described = identity.describe()
        if config.tls is None:
            # The clock was compared with nobody, and the moment of the next renewal is drawn when it runs.
            described |= {"clock": None, "next_renewal": None}
            described["state"] = described["state"] if described["id"] else "not joined"
        return {
            "running": False,
            "identity": described,
            "certificates": [one.describe() for one in every],
            "warnings": warnings(every, datetime.now(UTC)),
        }

    try:
        return asyncio.run(look())
    except PkiError as error:
        raise CommandError(ExitCode.CONFIG, str(error)) from error
