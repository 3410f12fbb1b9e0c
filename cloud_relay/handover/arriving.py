"""The new process: looks whether it can take over, takes one thing after the other, and serves.

Until it has said "serving", the old one can take everything back, and does when this process fails. When the old one
dies, everything is this process's.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.doors import require_contexts
from cloud_relay.handover.predecessor import Predecessor
from cloud_relay.identity.office import rehearse
from cloud_relay.loading import check_state
from cloud_relay.sender_service import rehearse_senders
from shared.crash_points import reach
from shared.listeners import Inherited
from shared.logs import get_logger
from shared.tcp.head import Ends

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.handover.passing import Passed
    from cloud_relay.session import Key
    from cloud_relay.tunnels import TunnelListener
    from shared.channel import Message
    from shared.process import StopRequest

LOOK: Final = 0.05
"""Seconds between looks at which connectors are here."""

LOCK_TIMEOUT: Final = 10.0

NAMING: Final = 5.0
"""Seconds for the old process to tell the service manager about this one."""

NAMED: Final = 20
"""Targets without a connector that are named to the old process."""

log = get_logger("relay.upgrade")


class Arriving:
    """Made with what was passed to this process; without it, all of this does nothing."""

    def __init__(self, passed: Passed | None = None, activated: Inherited | None = None) -> None:
        """`activated` are sockets of the service manager's."""
        self.inherited = passed.inherited if passed is not None else activated or Inherited()
        self.control: socket.socket | None = passed.control if passed is not None else None
        self._predecessor = Predecessor(passed.channel) if passed is not None else None

    @property
    def reports(self) -> list[dict[str, Any]]:
        """How the processes before this one are that have not ended yet, newest first. JSON-able."""
        return self._predecessor.reports if self._predecessor is not None else []

    @property
    def patience(self) -> float:
        """Seconds to wait for the state: a process that dies is heard of before the kernel has let go of its locks."""
        return LOCK_TIMEOUT if self.is_handed else 0.0

    @property
    def is_handed(self) -> bool:
        """Whether another process gives what it has to this one."""
        return self._predecessor is not None

    async def prepare(self, app: RelayApp, stop_request: StopRequest) -> None:
        """Try all that can be tried, say so, and wait until the old process lets go. CommandError, PkiError."""
        predecessor = self._predecessor
        if predecessor is None:
            return
        predecessor.on_stop = stop_request.is_wanted.set  # never urgent: a signal may have come as well
        predecessor.start()
        await predecessor.wait_for("hello")
        for message in predecessor.said.get("hello", ()):
            check_state(app.config.state_dir, Path(message["state_dir"]))
        await asyncio.to_thread(rehearse_serving, app)
        predecessor.say("prepared")
        reach("relay.arriving.prepared")
        await predecessor.wait_for("take-state")

    async def receive_connectors(self, app: RelayApp, tunnel: TunnelListener) -> None:
        """The tunnel port is open here: take what comes to the old process's, and wait until it gives the ingress."""
        predecessor = self._predecessor
        if predecessor is None:
            return

        def take(message: Message, sock: socket.socket) -> None:
            tunnel.take(sock, Ends(*message["ends"]), message["name"])

        predecessor.take_passed(take)
        predecessor.say("tunnels-open")
        reach("relay.arriving.tunnels-open")
        told: object = None
        while not await predecessor.wait_for("take-ingress", LOOK):
            missing = [key for key in self._wanted(app) if not app.registry.count(key)]
            if missing != told and predecessor.said.get("all-keys"):
                told = missing
                predecessor.say("missing", count=len(missing), keys=missing[:NAMED])
        for message in predecessor.said.get("owed", ()):
            app.limits.owe([tuple(one) for one in message["gates"]], app.loop.time())

    def refuse_strays(self) -> None:
        """All listeners are there. CommandError for sockets of the service manager's that none of them wanted."""
        if not self.is_handed:
            self.inherited.refuse_strays()
            return
        strays = self.inherited.unclaimed()
        self.inherited.close()
        if strays:
            log.warning("listeners of the old process are not in this config, and end with it", addresses=strays)

    async def serves(self) -> None:
        """Everything is here. Returns once the service manager, if there is one, knows that this is the service now:
        what this process says to it before is not believed."""
        if self._predecessor is not None:
            self._predecessor.say("serving")
            reach("relay.arriving.serving")
            await self._predecessor.wait_for("named", NAMING)

    def leaves(self, word: str) -> None:
        """This process ends: because it was told to ("leaving"), or since a third one has taken over ("succeeded")."""
        if self._predecessor is not None:
            self._predecessor.say(word)

    def stop(self) -> None:
        """Hear nothing more, and let go of all but the channel: what went wrong may be still to be told."""
        self.inherited.close()
        if self._predecessor is not None:
            self._predecessor.stop()

    # --- within

    def _wanted(self, app: RelayApp) -> list[Key]:
        """What pushes can go to in the old process, and have a route to here."""
        predecessor = self._predecessor
        if predecessor is None:
            return []
        there = {tuple(key) for message in predecessor.said.get("keys", ()) for key in message["keys"]}
        return sorted(there & {route.key for route in app.snapshot.routes})


def rehearse_serving(app: RelayApp) -> None:
    """Whether its config could be served with the state that another process holds. May block. CommandError."""
    require_contexts(app.config, lambda: rehearse(app.config, app.clock))
    rehearse_senders(app.config)
