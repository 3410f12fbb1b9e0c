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
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.handover.follow import Follower
from cloud_relay.handover.steps import hand_over, launch, parts_of
from cloud_relay.handover.successor import Successor
from cloud_relay.health import RelayState
from shared.channel import Message
from shared.control import ControlRequest, Routes, as_control_fault
from shared.crash_points import reach
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.doors import Doors
    from shared.launch import Launcher
    from shared.process import StopRequest

REPORT_EVERY: Final = 1.0
LOOK: Final = 0.1
"""Seconds between looks at whether the last connection has ended."""

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
        self._reload: asyncio.Task[Any] | None = None
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
        if self._app.state is not RelayState.SERVING:
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
        await cancel(self._task, self._followed, self._reload)
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
            launcher = self._launcher
            if launcher is None:
                raise CommandError(ExitCode.REFUSED, "this process cannot start another one", "", "not-serving")
            successor = self._successor = launch(self._app, launcher, self._ended, self._said)
            reach("relay.leaving.launched")
            await hand_over(self._app, successor, self._let_go, anyway=anyway)
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
                "connections": parts_of(app).doors.open_connections,
                "seconds": app.config.drain.upgrade,
            },
            "new": {"pid": successor.pid, "version": successor.said["hello"]["version"]},
        }

    async def _let_go(self) -> None:
        """The state is the new process's from now on, until it is taken back."""
        await parts_of(self._app).identity.let_go()
        self._followed = spawn(self._follower.run(), "following the state")

    async def _take_back(self) -> None:
        """The new process came to nothing: be as before. What cannot be had yet is tried again, for ever."""
        doors, control, identity = parts_of(self._app)
        successor, self._successor = self._successor, None
        if successor is not None:
            await successor.kill()
        doors.resume_ports()
        doors.tunnel.stay()
        self._app.serve_again()
        for reopen in (doors.resume_observe, control.reclaim):
            try:
                await reopen()
            except (CommandError, OSError) as error:  # pushes flow all the same, and SIGTERM still ends it
                log.error("not all doors could be opened again", cause=str(error), remedy="restart the relay soon")
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
        parts_of(self._app).control.disown()
        self._app.relieve()
        self._app.arriving.leaves("succeeded")
        log.info(
            "a new process serves; this one serves out its connections",
            pid=successor.pid if successor is not None else 0,
        )
        # The new process may have read a config that was not in force here.
        self._reload = spawn(self._app.reload(), "reload")
        self._task = spawn(self._serve_out(), "the end of what is left")

    async def _serve_out(self) -> None:
        app, doors = self._app, parts_of(self._app).doors
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
        if self._launcher is not None and self._launcher.has_children:
            self._launcher.hold_signals()
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
        if self.phase is not Phase.LEAVING or self._is_succeeded:
            return
        if self._is_ending:
            self._end_at_once()
            return
        log.error("the new process has died: this one takes everything back")
        self.phase = Phase.PASSING
        self._task = spawn(self._back(self._task), "taking back")

    def _end_at_once(self) -> None:
        """The new process died when this one had closed its doors for good. What is under way here is worth less than
        that whoever started the relay can start it anew."""
        if self._stop_request is None or self._stop_request.is_wanted.is_set():
            return
        log.error("the new process has died while this one drained its last: it ends at once, to be started anew")
        if self._launcher is not None and self._launcher.has_children:
            self._launcher.hold_signals()
        self._stop_request.is_wanted.set()
        self._stop_request.is_urgent.set()

    async def _back(self, leaving: asyncio.Task[Any] | None) -> None:
        await cancel(leaving, self._reload)
        await self._take_back()
        # What this process read for the new one counts for its senders and routes already; now for its doors, too.
        self._reload = spawn(self._app.reload(), "reload")


def _told_elsewhere(_name: str, _error: BaseException) -> None:
    """Whoever asked for the upgrade gets what it raised."""
