"""All prechecks of one config: identity and targets, every relay, the connector that runs, and a push if one is asked
about."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from connector_agent.prechecks.identity import SUBJECT, Way, look_at_identity
from connector_agent.prechecks.push import Asked, judge_push
from connector_agent.prechecks.relay import RelayCheck
from connector_agent.prechecks.route import exit_code_for
from connector_agent.prechecks.target import TargetCheck
from connector_agent.proxy import ProxyError
from connector_agent.wiring import choose_proxies
from shared.control import CONTROL_SOCKET, control_request
from shared.exits import CommandError, ExitCode
from shared.host_checks import check_state_dir
from shared.pki.files import PkiError
from shared.prechecks import Checklist, Figure, Precheck

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig

AT_ONCE: Final = 16
"""Relays and targets that are looked at at the same time."""

PATIENCE: Final = 5.0
"""Seconds for the answer of the connector that runs."""


async def run_prechecks(
    config: ConnectorConfig, environ: Mapping[str, str], warnings: list[str], asked: Asked | None = None
) -> list[Precheck]:
    """Every line, in the order in which they are best read. `warnings`: of the config."""
    own = Checklist(SUBJECT)
    own.ok("config", "good")
    for warning in warnings:
        own.warning("config", warning, "Change it, if it is not meant.")
    way = _find_way(config, environ, own)
    await _ask_daemon(config.state_dir, own)
    check_state_dir(own, config.state_dir)
    places = asyncio.Semaphore(AT_ONCE)
    relays = [] if way is None else [RelayCheck(relay, way).run() for relay in way.known.relays]
    targets = [TargetCheck(config, target).run() for target in config.targets]
    found = await asyncio.gather(*(_in_turn(one, places) for one in [*relays, *targets]))
    rows = [row for one in found for row in one]
    return own.rows + rows + (judge_push(config, asked) if asked is not None else [])


async def _in_turn(check: Coroutine[Any, Any, list[Precheck]], places: asyncio.Semaphore) -> list[Precheck]:
    async with places:
        return await check


def _find_way(config: ConnectorConfig, environ: Mapping[str, str], own: Checklist) -> Way | None:
    """None where the proxy's settings cannot be used: nobody knows then how relays are reached."""
    known = look_at_identity(config, own)
    if not known.relays:
        own.skipped("no relay is known to this connector yet", "relays")
    try:
        return Way(known, choose_proxies(config, environ), names_proxy=config.proxy is not None)
    except (PkiError, ProxyError) as error:
        own.failed("proxy", str(error), "Mend the config's proxy, or https_proxy in the environment.",
                   code=getattr(error, "code", ""), exit_code=ExitCode.CONFIG)  # fmt: skip
        return None


async def _ask_daemon(state_dir: Path, own: Checklist) -> None:
    """A connector that runs with this config knows best how its tunnels are."""
    try:
        status = await control_request(state_dir / CONTROL_SOCKET, "GET", "/v1/status", patience=PATIENCE)
    except CommandError as error:
        own.skipped(f"none that answers here runs with this config ({error.message})", "daemon")
        return
    tunnels = [one for one in status["tunnels"] if one["state"] != "draining"]  # a new one has taken their place
    is_open = [one for one in tunnels if one["state"] == "open"]
    figure = Figure(len(is_open), "tunnel" if len(is_open) == 1 else "tunnels")
    if len(is_open) == len(tunnels):
        own.ok("daemon", f"{status['state']} since {status['started_at']}", figure)
        return
    errors = list(dict.fromkeys(str(one["error"]) for one in tunnels if one.get("error")))
    told = f"{len(tunnels)} tunnels are wanted" + (f": {'; '.join(errors[:3])}" if errors else "")
    remedy = "See below what is in the way; 'connector-agent status' shows each tunnel."
    if is_open:
        own.warning("daemon", told, remedy, figure)
    else:
        codes = {one.get("code") or "" for one in tunnels if one.get("error")}
        own.failed("daemon", told, remedy, figure, exit_code=exit_code_for(*codes))
