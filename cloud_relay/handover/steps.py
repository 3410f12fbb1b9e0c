"""The steps by which an old process hands over: each waits for the new one's word before it gives the next thing away.

Whatever raises in between, the caller takes everything back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud_relay.handover.passing import MAX_PASSED, wrap
from cloud_relay.handover.successor import Successor
from shared.channel import Channel, Message, batches
from shared.crash_points import reach
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    import socket

    from cloud_relay.app import RelayApp
    from cloud_relay.doors import Doors
    from cloud_relay.identity.service import IdentityService
    from shared.control import ControlServer
    from shared.launch import Launcher
    from shared.tcp.head import Ends

START_TIMEOUT: Final = 60.0
"""Seconds for the new process to start and to try all that it can, on a busy machine."""

TAKE_TIMEOUT: Final = 20.0
"""Seconds for it to take what was let go. Connectors and commands wait meanwhile."""

ATTACH_TIMEOUT: Final = 15.0
"""Seconds for connectors to come to it after they were asked, beyond the spread of their dials."""

JOIN_TIMEOUT: Final = 2.0
"""Seconds for those who join to get their answer. It is one question; who needs longer is no connector of ours."""

LOOK: Final = 0.1
"""Seconds between looks at whether they are through."""

BATCH: Final = 300
"""Targets, or quotas, in one message."""

MARGIN: Final = 60.0
"""Seconds that tunnels may last beyond what the old process means to take."""

log = get_logger("relay.upgrade")


class Parts(NamedTuple):
    """What a relay that serves has."""

    doors: Doors
    control: ControlServer
    identity: IdentityService


def parts_of(app: RelayApp) -> Parts:
    """CommandError while the relay starts."""
    if app.doors is None or app.control is None or app.identity is None:
        raise CommandError(ExitCode.REFUSED, "the relay is starting", "", "not-serving")
    return Parts(app.doors, app.control, app.identity)


def launch(
    app: RelayApp, launcher: Launcher, on_end: Callable[[], None], on_word: Callable[[str, Message], None]
) -> Successor:
    """Start the new process, with all listening sockets. CommandError: it cannot be started."""
    parts = parts_of(app)
    channel, theirs = Channel.pair()
    gift = wrap(theirs, parts.control.socket, parts.doors.listening())
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
    successor = Successor(process, channel, on_end, on_word)
    successor.say("hello", pid=os.getpid(), state_dir=str(app.config.state_dir.absolute()))
    return successor


async def hand_over(
    app: RelayApp, successor: Successor, let_go: Callable[[], Awaitable[None]], *, anyway: bool
) -> None:
    """Give one thing after the other, until the new process serves. CommandError says what went wrong.

    `let_go` gives the state away. `anyway`: connectors that do not come to the new process are left behind.
    """
    doors, control, identity = parts_of(app)
    await successor.expect("prepared", START_TIMEOUT)
    reach("relay.leaving.prepared")

    doors.pause_tunnels(_Forward(successor))
    await control.pause()
    await _until_joined(app, doors)
    await let_go()
    successor.say("take-state")
    reach("relay.leaving.state-released")
    await successor.expect("tunnels-open", TAKE_TIMEOUT)
    identity.office.registrar.retire()
    reach("relay.leaving.tunnels-moved")

    await _until_attached(app, doors, successor, anyway=anyway)
    reach("relay.leaving.attached")
    doors.pause_ingress()
    for gates in batches(app.limits.owed(app.loop.time()), BATCH):
        successor.say("owed", gates=gates)
    successor.say("take-ingress")
    await successor.expect("serving", TAKE_TIMEOUT)


async def _until_joined(app: RelayApp, doors: Doors) -> None:
    """Until nobody is about to join here; who takes longer has to begin anew, and does."""
    until = app.loop.time() + JOIN_TIMEOUT
    while doors.tunnel.enrolment.in_progress and app.loop.time() < until:  # noqa: ASYNC110 - nobody else wants to know
        await asyncio.sleep(LOOK)


async def _until_attached(app: RelayApp, doors: Doors, successor: Successor, *, anyway: bool) -> None:
    """Until pushes can go everywhere in the new process that they can go to here."""
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
                if not missing["count"] or _are_gone_here(app, missing):
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


def _are_gone_here(app: RelayApp, missing: Message) -> bool:
    """Whether these connectors have left this process, too."""
    count, keys = missing["count"], missing["keys"]
    return count == len(keys) and not any(app.registry.count(tuple(key)) for key in keys)


class _Forward:
    """In place of the tunnel listener at a port that is the ingress', too: connectors go to the new process."""

    def __init__(self, successor: Successor) -> None:
        self._successor = successor

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        if self._successor.channel.waiting >= MAX_PASSED:  # it does not take them: they may try again
            sock.close()
            return
        self._successor.channel.send({"say": "connector", "ends": list(ends), "name": server_name}, sock)
