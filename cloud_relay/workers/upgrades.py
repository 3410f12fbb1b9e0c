"""What the first worker is asked of upgrades: to have one begun, and how far it is. See `rolling`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.loading import check_state, load
from shared.config import ConfigError
from shared.control import ControlFault, ControlRequest, Routes
from shared.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from shared.channel import Channel, Message

OVER: Final = frozenset({"done", "failed"})
"""Stages after which nothing more comes: see `rolling.Stage`."""

PATIENCE: Final = 5.0
"""Seconds for the supervisor to begin."""


class Upgrades:
    """One at each worker: the supervisor tells all of them how far the last upgrade is, those that are new, too."""

    def __init__(self, app: RelayApp, channel: Channel) -> None:
        self.last: dict[str, Any] | None = None
        """See `Rolling.describe`."""
        self._app = app
        self._channel = channel
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Upgrades {self.last}>"

    @property
    def routes(self) -> Routes:
        """POST /v1/upgrade begins one, and GET tells how far the last one is."""
        return {("POST", "/v1/upgrade"): self._begin, ("GET", "/v1/upgrade"): self._tell}

    def heard(self, said: Message) -> None:
        """The supervisor tells how far it is."""
        self.last = said["upgrade"]
        self._news.set()

    async def _begin(self, _request: ControlRequest) -> dict[str, Any]:
        if self.last is not None and self.last["stage"] not in OVER:
            raise ControlFault(409, "upgrading", "an upgrade is under way", "Wait until it is through.")
        try:  # what the new processes would not start with is refused at once
            config = (await asyncio.to_thread(load, self._app.path)).config
            check_state(config.state_dir, self._app.config.state_dir)
        except (ConfigError, CommandError) as error:
            raise ControlFault(
                409, "config-invalid", f"nothing is replaced: {error}", exit_code=ExitCode.CONFIG
            ) from error
        number = self._number()
        self._channel.send({"say": "roll"})
        try:
            async with asyncio.timeout(PATIENCE):
                while self._number() == number:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise ControlFault(
                409, "upgrading", "the supervisor has not begun", "Look at its log, and at 'cloud-relay status'."
            ) from error
        return await self._tell(_request)

    async def _tell(self, _request: ControlRequest) -> dict[str, Any]:
        return {"workers": self._app.workers, "upgrade": self.last}

    def _number(self) -> int:
        return int(self.last["number"]) if self.last is not None else 0
