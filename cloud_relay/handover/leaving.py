"""The old process: starts the new one, gives it one thing after the other, serves what it has, and ends.

    SERVING ──▶ PASSING ──▶ LEAVING ──▶ over
       ▲           │           │
       └───────────┴───────────┘  the new process failed, or died: everything is taken back

Whatever goes wrong before the end, this process has kept its copies of all sockets, its tunnels and its connections.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.handover.follow import Follower
from cloud_relay.handover.passing import wrap
from cloud_relay.handover.successor import Successor
from cloud_relay.health import RelayState
from shared.channel import Channel, Message, batches
from shared.control import ControlRequest, Routes, as_control_fault
from shared.crash_points import reach
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.doors import Doors
    from cloud_relay.identity.service import IdentityService
    from shared.control import ControlServer
    from shared.launch import Launcher
    from shared.process import StopRequest
    from shared.tcp.head import Ends

START_TIMEOUT: Final = 60.0
"""Seconds for the new process to start and to try all that it can, on a busy machine."""

TAKE_TIMEOUT: Final = 20.0
"""Seconds for it to take what was let go. Connectors and commands wait meanwhile."""

ATTACH_TIMEOUT: Final = 15.0
"""Seconds for connectors to come to it after they were asked, beyond the spread of their dials."""

REPORT_EVERY: Final = 1.0
LOOK: Final = 0.1
"""Seconds between looks at whether the last connection has ended."""

BATCH: Final = 300
"""Targets, or quotas, in one message."""

MARGIN: Final = 60.0
"""Seconds that tunnels may last beyond what this process means to take."""

log = get_logger("relay.upgrade")


class Phase(enum.Enum):
    """How far it is."""

    SERVING = "serving"
    PASSING = "passing"
    LEAVING = "leaving"


class Leaving:
    """One per process, made by the app. `launcher` None: nothing can be started here."""

    def __init__(
        self, app: RelayApp, launcher: Launcher | None, name_successor: Callable[[int], Awaitable[None]]
    ) -> None:
        """`name_successor` tells the service manager which process is the service from now on."""
        self.phase = Phase.SERVING
        self._app = app
        self._launcher = launcher
        self._name_successor = name_successor
        self._follower = Follower(app)
        self._successor: Successor | None = None
        self._is_succeeded = False
        self._is_ending = False
        self._stop_request: StopRequest | None = None
        self._task: asyncio.Task[Any] | None = None
        self._followed: asyncio.Task[Any] | None = None
        self._since = 0.0

    def __repr__(self) -> str:
        return f"<Leaving {self.phase.value} {self._successor!r}>"

    # --- what is asked

    def routes(self, stop_request: StopRequest) -> Routes:
        """POST /v1/upgrade: start another process, and hand over to it. `anyway`: also if connectors stay behind."""
        self._stop_request = stop_request

        async def upgrade(request: ControlRequest) -> dict[str, Any]:
            asked = request.body if isinstance(request.body, dict) else {}
            try:
                return await self.upgrade(anyway=asked.get("anyway") is True)
            except CommandError as error:
                raise as_control_fault(error) from error

        return {("POST", "/v1/upgrade"): upgrade}

    async def upgrade(self, *, anyway: bool = False) -> dict[str, Any]:
        """Hand over to a new process. CommandError says why not; then everything is as it was."""
        if self.phase is not Phase.SERVING:
            raise CommandError(
                ExitCode.REFUSED, "an upgrade is under way", "Wait until it is through.", "upgrading"
            )  # fmt: skip
        if self._app.state is not RelayState.SERVING or self._launcher is None:
            raise CommandError(ExitCode.REFUSED, f"the relay is {self._app.state.value}", "", "not-serving")
        self.phase = Phase.PASSING
        task = self._task = spawn(self._pass_on(anyway=anyway), "hand-over", _told_elsewhere)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # it is who asked that was cancelled: an upgrade is no less wanted for that
                raise
            raise CommandError(ExitCode.FAILED, "the relay was told to end", "", "not-serving") from None

    async def drain(self) -> bool:
        """The process was told to end. Whether it is at its end already; the new process ends, too, unless it is."""
        if self.phase is Phase.PASSING:
            await cancel(self._task)  # which takes everything back
        if self.phase is not Phase.LEAVING:
            return False
        if self._task is not None and self._task.done():
            return True
        self._is_ending = True
        await cancel(self._task)
        launcher, successor = self._launcher, self._successor
        if launcher is not None and not launcher.is_detached:  # else the service manager tells all of them
            if successor is not None and not successor.has_ended:
                successor.say("stop")
            else:
                launcher.end_children()
        return False

    async def close(self) -> None:
        """End all of this."""
        await cancel(self._task, self._followed)
        if self._successor is not None:
            self._successor.let_go()

    @property
    def is_writer(self) -> bool:
        """Whether this process may write into the state directory."""
        return self._followed is None

    def forward_reload(self) -> bool:
        """SIGHUP came here: whether it is the new process that it is for."""
        successor = self._successor
        if self.phase is not Phase.LEAVING or successor is None or not successor.pid or successor.has_ended:
            return False
        os.kill(successor.pid, signal.SIGHUP)
        return True

    # --- passing on

    async def _pass_on(self, *, anyway: bool) -> dict[str, Any]:
        try:
            successor = self._launch()
            await self._hand_over(successor, anyway=anyway)
        except BaseException as error:
            log.error("the upgrade has failed; this process serves on", cause=str(error) or type(error).__name__)
            await self._take_back()
            raise
        self._leave()
        reach("relay.leaving.ingress-moved")
        app = self._app
        return {
            "old": {
                "pid": os.getpid(),
                "connections": self._parts()[0].open_connections,
                "seconds": app.config.drain.upgrade,
            },
            "new": {"pid": successor.pid, "version": successor.said["hello"]["version"]},
        }

    def _launch(self) -> Successor:
        app, launcher = self._app, self._launcher
        doors, control, _ = self._parts()
        if launcher is None:
            raise CommandError(ExitCode.REFUSED, "this process cannot start another one", "", "not-serving")
        channel, theirs = Channel.pair()
        gift = wrap(theirs, control.socket, doors.listening())
        try:
            process = launcher.launch(gift.variables, gift.descriptors)
        except OSError as error:
            channel.close()
            raise CommandError(
                ExitCode.FAILED, f"{launcher.command[0]} cannot be started: {error.strerror or error}",
                "Install it where this process was started from.", "cannot-start",
            ) from error  # fmt: skip
        finally:
            theirs.close()
        log.info("a new process was started, to hand over to", command=launcher.command[0])
        successor = self._successor = Successor(process, channel, self._ended, self._said)
        successor.say("hello", pid=os.getpid(), state_dir=str(app.config.state_dir.absolute()))
        reach("relay.leaving.launched")
        return successor

    async def _hand_over(self, successor: Successor, *, anyway: bool) -> None:
        app = self._app
        doors, control, identity = self._parts()
        await successor.expect("prepared", START_TIMEOUT)
        reach("relay.leaving.prepared")

        doors.pause_tunnels(_Forward(successor))
        await control.pause()
        await identity.let_go()
        self._followed = spawn(self._follower.run(), "following the state")
        successor.say("take-state")
        reach("relay.leaving.state-released")
        await successor.expect("tunnels-open", TAKE_TIMEOUT)
        identity.office.registrar.retire()
        reach("relay.leaving.tunnels-moved")

        await self._until_attached(successor, anyway=anyway)
        reach("relay.leaving.attached")
        doors.pause_ingress()
        for gates in batches(app.limits.owed(app.loop.time()), BATCH):
            successor.say("owed", gates=gates)
        successor.say("take-ingress")
        await successor.expect("serving", TAKE_TIMEOUT)

    async def _until_attached(self, successor: Successor, *, anyway: bool) -> None:
        """Until pushes can go everywhere in the new process that they can go to here."""
        app, (doors, _, _) = self._app, self._parts()
        lasts = app.config.drain.upgrade + app.config.drain.timeout + MARGIN
        asking = spawn(doors.tunnel.ask_replacements(lasts), "asking for new tunnels")
        try:
            for keys in batches(app.registry.keys(), BATCH):
                successor.say("keys", keys=keys)
            successor.say("all-keys")
            until = 0.0
            while True:
                missing = await successor.expect("missing", ATTACH_TIMEOUT)
                if asking.done():
                    if not missing["count"] or self._are_gone_here(missing):
                        return
                    until = until or app.loop.time() + doors.tunnel.reconnect_spread + ATTACH_TIMEOUT
                    if app.loop.time() >= until:
                        break
                await successor.heard(LOOK)
        finally:
            await cancel(asking)
        names = ", ".join("/".join(key) for key in missing["keys"][:3])
        if not anyway:
            raise CommandError(
                ExitCode.FAILED, f"no connector has come to the new process for {missing['count']} targets: {names}",
                "Look at its log for why; 'upgrade --anyway' leaves them behind.", "connectors-missing",
            )  # fmt: skip
        log.warning("connectors are left behind, as was asked for", targets=missing["count"], names=names)

    def _are_gone_here(self, missing: Message) -> bool:
        """Whether these connectors have left this process, too."""
        count, keys = missing["count"], missing["keys"]
        return count == len(keys) and not any(self._app.registry.count(tuple(key)) for key in keys)

    def _parts(self) -> tuple[Doors, ControlServer, IdentityService]:
        app = self._app
        if app.doors is None or app.control is None or app.identity is None:
            raise CommandError(ExitCode.REFUSED, "the relay is starting", "", "not-serving")
        return app.doors, app.control, app.identity

    async def _take_back(self) -> None:
        """The new process came to nothing: be as before. What cannot be had yet is tried again, for ever."""
        doors, control, identity = self._parts()
        successor, self._successor = self._successor, None
        if successor is not None:
            await successor.kill()
        await doors.resume()
        doors.tunnel.stay()
        self._app.serve_again()
        try:
            await control.reclaim()
        except CommandError as error:  # pushes flow all the same, and SIGTERM still ends it
            log.error("the control socket cannot be had again", cause=error.message, remedy="restart the relay soon")
        if self._followed is not None:
            await cancel(self._followed)
            await self._follower.take_back(identity)
            self._followed = None
        self.phase = Phase.SERVING
        log.info("this process serves as before")

    # --- leaving

    def _leave(self) -> None:
        """The new process serves: this one has its connections, and nothing else."""
        self.phase = Phase.LEAVING
        self._since = self._app.loop.time()
        successor = self._successor
        self._parts()[1].disown()
        self._app.leave(successor.pid if successor is not None else 0)
        self._task = spawn(self._serve_out(), "the end of what is left")

    async def _serve_out(self) -> None:
        app, (doors, _, _) = self._app, self._parts()
        until = app.loop.time() + app.config.drain.upgrade
        if (successor := self._successor) is not None:
            await self._name_successor(successor.pid)
            successor.say("named")
        reported = 0.0
        while doors.open_connections and (now := app.loop.time()) < until and not self._follower.is_lost:
            if now >= reported + REPORT_EVERY:
                reported = now
                self._report(doors)
            await asyncio.sleep(LOOK)
        self._is_ending = True
        await app.drain_rest()
        reach("relay.leaving.drained")
        log.info("this process has served out; the new one goes on", seconds=round(app.loop.time() - self._since, 1))
        if self._stop_request is not None:
            self._stop_request.is_wanted.set()

    def _report(self, doors: Doors) -> None:
        app = self._app
        if self._successor is None:
            return
        own = {
            "pid": os.getpid(),
            "state": "draining",
            "since_s": round(app.loop.time() - self._since, 1),
            "connections": doors.open_connections,
            "in_flight": app.in_flight,
            "tunnels": len(app.registry),
        }
        self._successor.say("report", reports=[own, *app.arriving.reports][:8])

    # --- what the new process does

    def _said(self, word: str, _message: Message) -> None:
        if word == "succeeded":
            self._is_succeeded = True
        elif word == "leaving" and self._stop_request is not None and self.phase is Phase.LEAVING:
            self._is_succeeded = True
            log.info("the new process was told to end, so this one ends, too")
            self._stop_request.is_wanted.set()

    def _ended(self) -> None:
        if self.phase is not Phase.LEAVING or self._is_succeeded or self._is_ending:
            return
        log.error("the new process has died: this one takes everything back")
        self.phase = Phase.PASSING
        self._task = spawn(self._back(self._task), "taking back")

    async def _back(self, leaving: asyncio.Task[Any] | None) -> None:
        await cancel(leaving)
        await self._take_back()


class _Forward:
    """In place of the tunnel listener at a port that is the ingress', too: connectors go to the new process."""

    def __init__(self, successor: Successor) -> None:
        self._successor = successor

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        self._successor.channel.send({"say": "connector", "ends": list(ends), "name": server_name}, sock)


def _told_elsewhere(_name: str, _error: BaseException) -> None:
    """Whoever asked for the upgrade gets what it raised."""
