"""What makes one of several processes that serve as one relay out of a RelayApp: its siblings, and who does what.

Every worker lets in senders and connectors, issues certificates, and follows what the others have written. Worker 0
keeps the relay's own identity alive, too, and is asked for all of them: at the control socket, for health and metrics.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cloud_relay.handover.follow import Follower
from cloud_relay.port_plan import addresses
from cloud_relay.workers.blindness import Blindness
from cloud_relay.workers.host import Host
from cloud_relay.workers.merging import Shown
from cloud_relay.workers.passing import ALIVE_EVERY, FOLDER, MAX_WAITING
from cloud_relay.workers.quotas import Dividing, Obeying
from cloud_relay.workers.serving_out import serve_out
from cloud_relay.workers.sibling import Sibling
from cloud_relay.workers.status import merge_status
from cloud_relay.workers.switch import Switch
from cloud_relay.workers.trial import WORDS, Trial
from cloud_relay.workers.upgrades import Upgrades
from cloud_relay.workers.wide import WideRegistry
from shared.control import CONTROL_SOCKET, ControlRequest, Routes, control_request
from shared.exits import CommandError
from shared.logs import get_logger, log_limited
from shared.tasks import cancel, spawn
from shared.tcp.head import Ends
from shared.tunnel.local import LocalTransport

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.config import RelayConfig
    from cloud_relay.health import Routed
    from cloud_relay.identity.registrar import Registrar
    from cloud_relay.tunnels import TunnelListener
    from cloud_relay.workers.passing import Assignment
    from shared.channel import Message
    from shared.listeners import Inherited
    from shared.process import StopRequest
    from shared.protocol import MemoryBudget
    from shared.tunnel.gaps import GapWatch

PATIENCE: Final = 5.0
"""Seconds for a sibling to answer."""

GOODBYE: Final = 1.0
"""Seconds that links between workers get at the end, to say goodbye in good order."""

log = get_logger("relay.workers")


class Team:
    """Made by the app; `open` when it has listeners, `close` once."""

    def __init__(self, app: RelayApp, assignment: Assignment, budget: MemoryBudget, gaps: GapWatch) -> None:
        self._app = app
        self._channel = assignment.channel
        self._state_dir = app.config.state_dir
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._all_closed = asyncio.Event()
        self._take: Callable[[socket.socket, Ends, str | None], None] = _drop
        self._stop: Callable[[], None] = _nothing
        self._follower = Follower(app)
        self._upgrades = Upgrades(app, assignment.channel)
        self.trial = Trial(app, assignment.channel, app.config.state_dir / FOLDER)
        self._shown = Shown()
        self.number = assignment.number
        self.workers = assignment.workers
        self.inherited: Inherited = assignment.inherited
        self.host = Host(app.loop, app.registry, budget, gaps)
        crossed = app.metrics.counter(
            "qanat_relay_pushes_crossed", "Pushes that took a second hop, to another worker's tunnel."
        )
        self.wide = WideRegistry(app.registry, crossed.labels())
        self.wide.siblings = [
            Sibling(app.loop, number, self._path(number, "link"), self.wide, budget, gaps, own=self.number)
            for number in range(self.workers)
            if number != self.number
        ]
        self.blindness = Blindness(app, self.number, self._follower, self.host, self.wide)
        self.blindness.add_gauges(app.metrics)

    def __repr__(self) -> str:
        return f"<Team of {self.workers}, this is {self.number}>"

    @property
    def is_first(self) -> bool:
        """Whether this worker is asked for all of them."""
        return self.number == 0

    @property
    def control_socket(self) -> Path:
        """Where this worker can be asked."""
        return self._control(self.number)

    def moved(self, config: RelayConfig) -> list[str]:
        """Keys by which this config asks for other addresses than the one in force: the supervisor binds them, and
        holds them open."""
        before, after = addresses(self._app.config), addresses(config)
        listened, wanted = ({str(listen) for _, listen in several} for several in (before, after))
        return [where for where, listen in [*before, *after] if str(listen) in listened ^ wanted]

    def ways_of(self, route: Routed) -> int:
        """Ways that a push of this route could go now, at whichever worker."""
        return self.wide.count(route.key)

    def entrance(self, tunnel: TunnelListener) -> Switch:
        """Who gets connectors' connections: the worker that they ask for."""
        return Switch(self.number, tunnel, self._pass_on)

    def prepare(self, stop_request: StopRequest) -> None:
        """Make the folder of the sockets, and hear the supervisor: without one this worker ends."""
        (self._state_dir / FOLDER).mkdir(mode=0o700, exist_ok=True)
        self._stop = stop_request.is_wanted.set  # never urgent: a signal may have come as well
        self._channel.start(self._app.loop, self._on_message, self._orphaned)

    async def open(self, tunnel: TunnelListener) -> None:
        """Be there for the siblings, and know of them. CommandError, OSError."""
        self._take = tunnel.take
        tunnel.join(self.number, self.workers, self.wide.rivals_of)
        self._app.probing.elsewhere = self.wide.states
        self.wide.rival_came, self.wide.rival_gone = tunnel.rival_came, tunnel.rival_gone
        self.wide.hint = tunnel.hint
        self._app.share.elsewhere, self._app.share.on_active = self.wide.active, self.host.tell_active
        path = self._path(self.number, "link")
        path.unlink(missing_ok=True)
        self._server = await self._app.loop.create_unix_server(self._accept, str(path))
        path.chmod(0o600)
        self._tasks = [spawn(sibling.run(), f"sibling {sibling.number}") for sibling in self.wide.siblings]
        self._tasks += [
            spawn(self._follower.run(), "follower"),
            spawn(self.blindness.run(), "blindness"),
            spawn(self._quotas().run(), "quotas"),
        ]
        if self._app.identity is not None:
            self._share_state(self._app.identity.office.registrar)

    def serves(self) -> None:
        """This worker lets in senders and connectors."""
        self.inherited.close()
        self._channel.send({"say": "ready"})
        self._tasks.append(spawn(self._beat(), "signs of life"))

    async def wait_for_all(self, seconds: float) -> None:
        """This worker has no senders any more. Wait until no other one has, for they may need its tunnels."""
        self._channel.send({"say": "closed"})
        try:
            async with asyncio.timeout(seconds):
                await self._all_closed.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Let go of all."""
        await cancel(*self._tasks)
        await self.trial.close()
        if self._server is not None:
            self._server.close()  # its path may be that of the next one by now
        ends: list[Sibling | Host] = [*self.wide.siblings, self.host]
        for end in ends:
            end.close()
        await self._until_ended(ends)
        self._channel.stop()  # what went wrong may be still to be told

    # --- what the first one is asked for all

    def routes(self, own: Routes) -> Routes:
        """The control socket's routes: those of this worker, with the others' part where they have one."""
        if not self.is_first:
            return {**own, ("GET", "/v1/metrics"): self._own_metrics}
        return {
            **own, **self._upgrades.routes, ("GET", "/v1/status"): self._status,
            ("POST", "/v1/drain"): self._drain,
        }  # fmt: skip

    async def metrics(self) -> bytes:
        """One exposition for all of them. Of a worker that does not answer it holds what it has shown last."""
        self._shown.take(self.number, os.getpid(), self._app.metrics.render())
        for number, answer in (await self._ask_all("GET", "/v1/metrics")).items():
            self._shown.take(number, answer["pid"], answer["metrics"].encode())
        return await asyncio.to_thread(self._shown.merged)

    async def _own_metrics(self, _request: ControlRequest) -> dict[str, Any]:
        return {"pid": os.getpid(), "metrics": self._app.metrics.render().decode()}

    async def _status(self, _request: ControlRequest) -> dict[str, Any]:
        answers = await self._ask_all("GET", "/v1/status")
        return merge_status(
            {self.number: self._app.status(), **answers}, self.workers, self._upgrades.last, self.blindness.health()
        )

    async def _drain(self, _request: ControlRequest) -> dict[str, Any]:
        in_flight = await self._status(_request)
        self._channel.send({"say": "stop"})
        return {"state": "draining", "in_flight": in_flight["in_flight"]}

    async def _ask_all(self, method: str, url: str) -> dict[int, dict[str, Any]]:
        """The siblings' answers by number."""
        siblings = self.wide.siblings
        answers = await asyncio.gather(
            *(control_request(self._control(one.number), method, url, patience=PATIENCE) for one in siblings),
            return_exceptions=True,
        )
        found = {}
        for sibling, answer in zip(siblings, answers, strict=True):
            number = sibling.number
            if isinstance(answer, CommandError):
                # One whose news are not heard begins or leaves just now, of which the supervisor tells.
                log_limited(
                    log, "warning" if sibling.is_connected else "debug", f"ask {number}", "a worker does not answer",
                    sibling=number, cause=str(answer),
                )  # fmt: skip
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[number] = answer
        return found

    # --- within

    def _share_state(self, registrar: Registrar) -> None:
        """What one has written counts everywhere at once: a connector goes with a new certificate to all of them."""

        def hear(number: int) -> None:
            if number > registrar.book.number:
                self._follower.hasten()

        registrar.on_stored = lambda number: self.host.tell({"stored": number})
        self.wide.stored = hear

    def _quotas(self) -> Dividing | Obeying:
        app = self._app
        if self.is_first:
            dividing = Dividing(app.limits, self.workers, self.host.tell_one, app.loop.time)
            self.host.on_said, self.host.on_joined, self.host.on_left = dividing.hear, dividing.joined, dividing.lost
            return dividing
        first = next(sibling for sibling in self.wide.siblings if sibling.number == 0)
        obeying = Obeying(app.limits, self.workers, first.tell, app.loop.time)
        first.on_joined, self.wide.share = obeying.begin, obeying.take
        return obeying

    async def _until_ended(self, ends: Sequence[Sibling | Host]) -> None:
        """A socket that the loop is not given the time to close is left to the garbage collector."""
        try:
            async with asyncio.timeout(GOODBYE):
                for end in ends:
                    await end.ended()
        except TimeoutError:
            for end in ends:
                end.abort()
            for end in ends:
                await end.ended()

    def _path(self, number: int, kind: str) -> Path:
        return self._state_dir / FOLDER / f"{number}.{kind}"

    def _control(self, number: int) -> Path:
        return self._state_dir / CONTROL_SOCKET if number == 0 else self._path(number, "control")

    def _accept(self) -> LocalTransport:
        transport = LocalTransport(self._app.loop)
        self._app.loop.call_soon(self.host.connected, transport)
        return transport

    def _pass_on(self, worker: int, sock: socket.socket, ends: Ends, name: str | None) -> bool:
        if not 0 <= worker < self.workers or not self._channel.is_open or self._channel.waiting >= MAX_WAITING:
            return False
        self._channel.send({"say": "pass", "to": worker, "ends": list(ends), "name": name}, sock)
        return True

    def _orphaned(self) -> None:
        """The supervisor is gone. Whoever starts the relay anew needs the ports."""
        log.error("the supervisor has died, so this worker ends, too")
        if self._app.doors is not None:
            self._app.doors.free_ports()
        self._all_closed.set()
        self._stop()

    async def _beat(self) -> NoReturn:
        while True:
            await asyncio.sleep(ALIVE_EVERY)
            self._channel.send({"say": "alive"})

    async def _leave(self) -> None:
        try:
            await serve_out(self._app)
        finally:  # else the upgrade would wait for ever
            self._stop()

    def _on_message(self, said: Message, sock: socket.socket | None) -> None:
        if said["say"] == "take" and sock is not None:
            sock.settimeout(0.0)
            self._take(sock, Ends(*said["ends"]), said["name"])
        elif said["say"] == "leave":
            self._tasks.append(spawn(self._leave(), "serving out"))
        elif said["say"] == "all-closed":
            self._all_closed.set()
        elif said["say"] in WORDS:
            self.trial.heard(said)
        elif said["say"] == "upgrade":
            self._upgrades.heard(said)
        elif sock is not None:
            sock.close()


def _nothing() -> None:
    """Not started yet."""


def _drop(sock: socket.socket, _ends: Ends, _name: str | None) -> None:
    sock.close()
