"""From one config to the next in a relay that runs: whether it may have it, and what it needs for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from cloud_relay.config import RelayConfig, find_changes, restart_keys
from cloud_relay.doors import Contexts, load_contexts
from cloud_relay.expiries import describe_changes
from cloud_relay.handover.leaving import Phase
from shared.exits import CommandError
from shared.outcome import Outcome

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.ports import Port
    from shared.config import Loaded


class Tried(NamedTuple):
    """A config that can be used, with its certificates, the ports that are bound for it, and what it changes."""

    loaded: Loaded[RelayConfig]
    contexts: Contexts
    bound: dict[str, Port]
    outcome: Outcome


class Applying:
    """Puts configs into force. Made with the one that the process has started with."""

    def __init__(self, app: RelayApp, started_with: RelayConfig) -> None:
        self._app = app
        self._started_with = started_with

    async def apply(self, loaded: Loaded[RelayConfig]) -> Outcome:
        """Use this config, if nothing speaks against it; else nothing changes. PkiError, OSError: likewise."""
        tried = await self.try_out(loaded)
        if isinstance(tried, Outcome):
            return tried
        self.use(tried)
        return tried.outcome

    def use(self, tried: Tried) -> None:
        """Put it into force. Nothing fails, and nothing waits."""
        self._app.use(tried.loaded.config, tried.contexts, tried.bound)

    async def try_out(self, loaded: Loaded[RelayConfig]) -> Tried | Outcome:
        """All of it that may fail: what to use then, or what speaks against it. PkiError, OSError: likewise."""
        app, config = self._app, loaded.config
        refusal = self._refusal(config)
        if refusal is not None:
            return refusal
        if app.identity is None:
            return Outcome.refused(["the relay is starting"])
        contexts = await asyncio.to_thread(load_contexts, config, app.identity.context)
        bound: dict[str, Port] = {}
        if app.leaving.phase is Phase.SERVING:
            app.sender_service.open(config)
        if app.doors is not None and app.leaving.phase is Phase.SERVING:
            try:
                bound = await app.doors.bind_new(config)
            except CommandError as error:
                return Outcome.refused([error])
        before = app.doors.expiries if app.doors is not None else ()
        changes = [*find_changes(app.config, config), *describe_changes(before, contexts.expiries)]
        return Tried(loaded, contexts, bound, Outcome.taken(changes))

    def _refusal(self, config: RelayConfig) -> Outcome | None:
        app = self._app
        if app.leaving.phase is not Phase.LEAVING and (keys := restart_keys(self._started_with, config)):
            return Outcome.needs_restart(keys)._replace(needs_a_restart="state_dir" not in keys)  # no upgrade moves it
        if app.team is not None and (keys := app.team.moved(config)):
            return Outcome.needs_restart(keys)
        if app.leaving.phase is Phase.PASSING:
            return Outcome.refused(["an upgrade is under way: reload when it is through"])
        return None
