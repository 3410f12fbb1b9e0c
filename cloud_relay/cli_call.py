"""How a command about identity reaches the desk that performs it: in the running relay, else here, on its state."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.control import ControlUnreachable, as_command_error

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig


def call(config: Path, command: str, **asked: Any) -> dict[str, Any]:
    """One command of `identity.desk`: by the running relay, else on its state. It is told who asks."""
    from shared.commands import ask

    asked["by"] = user_name()
    try:
        return ask(config, "relay", "POST", f"/v1/identity/{command}", asked)
    except ControlUnreachable:
        return asyncio.run(_call_here(config, command, asked))


def user_name() -> str:
    """Who runs this command, for the audit trail. By the user's number: the environment may say anything, save root's,
    which says on whose behalf."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # a number without a name, as in a container
        name = f"#{user}"
    behind = os.environ.get("SUDO_USER") if user == 0 else None
    return f"{behind[:64]} (as {name})" if behind else name


def read_relay_config(path: Path) -> RelayConfig:
    """The relay's config; ConfigError says what is wrong with it."""
    from cloud_relay.config import RelayConfig
    from shared.cli import read_own_config

    return read_own_config(path, RelayConfig).config


async def _call_here(path: Path, command: str, asked: dict[str, Any]) -> dict[str, Any]:
    from cloud_relay.identity.book import Book
    from cloud_relay.identity.desk import Desk, perform
    from cloud_relay.identity.office import check_fits, open_office
    from cloud_relay.identity.store import STATE_FILE
    from cloud_relay.identity.upkeep import Upkeep
    from shared.clock import TrustedClock
    from shared.control import ControlFault
    from shared.logs import setup_logging
    from shared.owner import as_owner

    setup_logging("console", "error", io.StringIO())  # what fails is said by the command itself
    config = read_relay_config(path)
    if not (config.state_dir / STATE_FILE).exists():
        check_fits(config, Book())  # or else a wrong state_dir would be made, by whoever asks
    with as_owner(config.state_dir):
        office = await open_office(config, TrustedClock())
        try:
            names = [address.host for address in config.tunnel.advertise]
            upkeep = Upkeep(office.registrar, office.roll_over, office.own, lambda: names, lambda: None)
            return await perform(Desk(office, lambda: config, upkeep), command, asked)
        except ControlFault as fault:
            raise as_command_error(fault) from fault
        finally:
            await office.close()
