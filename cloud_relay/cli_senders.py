"""`cloud-relay senders`: who may push, and who is switched off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli import CommandError, ConfigOption, ExitCode, JsonOption, emit, make_app
from shared.tables import Rows

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cloud_relay.config import RelayConfig
    from cloud_relay.sender_state import SenderFile

DEFAULT_CONFIG: Final = Path("/etc/qanat/relay.yaml")

senders_app = make_app("senders", "Who may push, and who is switched off.")

SenderArgument = Annotated[str, typer.Argument(help="As TENANT/NAME: acme/s4-prod", metavar="TENANT/NAME")]


@senders_app.command("list")
def senders_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the senders: how they are known, whether they are switched off, and what they pushed."""
    found = list_senders(config)
    emit({"senders": found}, schema="qanat.relay.senders.v1", json=as_json, table=lambda: _table(found))


@senders_app.command("disable")
def senders_disable(sender: SenderArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Switch a sender off: from now on its pushes get 401, and so do tokens that were given out to it."""
    _switch(sender, config, as_json=as_json, is_disabled=True)


@senders_app.command("enable")
def senders_enable(sender: SenderArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Switch a sender on again."""
    _switch(sender, config, as_json=as_json, is_disabled=False)


def _switch(sender: str, config: Path, *, as_json: bool, is_disabled: bool) -> None:
    from shared.commands import ask
    from shared.control import ControlUnreachable
    from shared.names import is_name

    tenant, slash, name = sender.partition("/")
    if not slash or not is_name(tenant) or not is_name(name):
        raise CommandError(ExitCode.USAGE, f"{sender[:80]!r} names no sender", "Write it as TENANT/NAME: acme/s4-prod")
    verb = "disable" if is_disabled else "enable"
    url = f"/v1/senders/{tenant}/{name}/{verb}"
    try:
        answer = ask(config, "relay", "POST", url)
    except ControlUnreachable:
        answer = _switch_offline(config, tenant, name, is_disabled=is_disabled)
        try:  # a relay that was just starting may have read the state before
            ask(config, "relay", "POST", url)
        except ControlUnreachable:
            pass
    state = "off" if is_disabled else "on"
    text = f"{sender} is switched {state}" if answer["changed"] else f"{sender} was switched {state} already"
    emit(answer, schema=f"qanat.relay.senders.{verb}.v1", json=as_json, table=text)


def list_senders(path: Path) -> list[dict[str, Any]]:
    """As the running relay has them, else as the config and the state do."""
    from cloud_relay.sender_control import senders_view
    from shared.commands import ask
    from shared.control import ControlUnreachable

    try:
        found: list[dict[str, Any]] = ask(path, "relay", "GET", "/v1/senders")["senders"]
    except ControlUnreachable:
        config, state = _offline(path)
        found = senders_view(config, state.disabled())
    return found


def _switch_offline(path: Path, tenant: str, name: str, *, is_disabled: bool) -> dict[str, Any]:
    """No relay runs: write into its state, under the lock that it takes too."""
    from cloud_relay.sender_control import unknown_sender
    from shared.control import as_command_error
    from shared.owner import as_owner
    from shared.pki.files import PkiError

    config, state = _offline(path)
    entry = config.tenants.get(tenant)
    if entry is None or name not in {one.name for one in entry.senders}:
        known = (f"{tenant}/{one.name}" for tenant, entry in config.tenants.items() for one in entry.senders)
        raise as_command_error(unknown_sender(f"{tenant}/{name}", known))
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with as_owner(config.state_dir):  # root's, too, is a file that the relay's user can read
            has_changed = state.set_disabled((tenant, name), time.time() if is_disabled else None)
    except PkiError as error:  # of another user than the one who asks
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    except OSError as error:
        message = f"{state.path} cannot be written: {error.strerror or error}"
        raise CommandError(ExitCode.FAILED, message, code="state-unusable") from error
    return {"tenant": tenant, "sender": name, "disabled": is_disabled, "changed": has_changed}


def _offline(path: Path) -> tuple[RelayConfig, SenderFile]:
    from cloud_relay.config import RelayConfig
    from cloud_relay.sender_state import FILE, SenderFile
    from shared.cli import read_own_config
    from shared.pki.files import PkiError

    config = read_own_config(path, RelayConfig).config
    state = SenderFile(config.state_dir / FILE)
    try:
        state.load()
    except PkiError as error:
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    return config, state


def _table(senders: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            f"{one['tenant']}/{one['sender']}",
            f"off since {one['disabled_at']}" if one["disabled"] else "on",
            ", ".join(one["credentials"]),
            ", ".join(one["routes"]) or "-",
            "-" if one["pushes"] is None else one["pushes"],
            one["last_delivered"] or "-",
        )
        for one in senders
    ]
    return Rows(("sender", "state", "known by", "routes", "pushes", "last delivered"), rows, "senders")
