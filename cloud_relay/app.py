"""The relay's composition root: makes everything from one config file, starts and ends it, and reloads.

What outlives a reload: counters, gates, the registry of tunnels, the listeners. What a reload replaces, in one
assignment each: the snapshot that pushes work on, the TLS contexts, and what the tunnel listener lets in.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_relay import health
from cloud_relay.config import RelayConfig
from cloud_relay.doors import Contexts, Doors, require_contexts
from cloud_relay.fair_share import FairShare
from cloud_relay.gauges import add_gauges
from cloud_relay.handover.arriving import Arriving
from cloud_relay.handover.leaving import Leaving, Phase
from cloud_relay.hashing import HashingPool, worker_count
from cloud_relay.health import RelayState
from cloud_relay.identity.desk import Desk, desk_routes
from cloud_relay.identity.service import IdentityService, open_identity
from cloud_relay.ingress import Ingress
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics
from cloud_relay.ports import Port
from cloud_relay.probing.service import Probing
from cloud_relay.registry import Registry
from cloud_relay.reloading import Applying
from cloud_relay.sender_control import sender_routes
from cloud_relay.sender_desk import SenderDesk
from cloud_relay.sender_service import SenderService
from cloud_relay.snapshot import SnapshotBuilder
from cloud_relay.status import status_view
from cloud_relay.tunnel_parts import make_policy
from cloud_relay.wiring import make_context, make_doors
from cloud_relay.workers.team import Team
from shared.access_log import AccessLog, NoAccessLog
from shared.clock import TrustedClock
from shared.config import Loaded
from shared.control import CONTROL_SOCKET, ControlServer, Routes
from shared.control_api import control_routes
from shared.crash_points import reach
from shared.launch import Launcher
from shared.logs import get_logger, log_limited
from shared.observe import HealthReport
from shared.outcome import Outcome
from shared.process import StopRequest
from shared.protocol import MemoryBudget
from shared.reload_metrics import add_reload_gauges
from shared.reloading import Reloader
from shared.service_manager import ServiceManager
from shared.tasks import cancel, spawn
from shared.tunnel.gaps import GapWatch

if TYPE_CHECKING:
    from cloud_relay.workers.passing import Assignment

FORGET_AFTER: Final = 600.0
"""Seconds. A good credential that was not used for one to two of these is judged anew."""

UPGRADE: Final = "'cloud-relay upgrade' brings what changes only with a restart, and loses no push."
"""What a reload is told that asks for too much."""

TUNNEL_GRACE: Final = 2.0
"""Seconds that tunnels get at the end, to say goodbye in good order."""

STOP_GRACE: Final = 5.0
"""Seconds that ending everything at once may take after that, on a busy machine."""

log = get_logger("relay")


class RelayApp:
    """One relay. Make it inside a running event loop, `start` it once, `stop` it once."""

    def __init__(
        self,
        path: Path,
        loaded: Loaded[RelayConfig],
        manager: ServiceManager | None = None,
        arriving: Arriving | None = None,
        launcher: Launcher | None = None,
        assignment: Assignment | None = None,
    ) -> None:
        """`manager` is told of reloads and of a successor; the rest is told to it by who runs this. `arriving` has what
        was passed to this process, `launcher` starts the next one. `assignment`: it is one of several workers."""
        config = loaded.config
        self.workers = workers = assignment.workers if assignment is not None else 1
        self.arriving = arriving or Arriving()
        manager = manager or ServiceManager()
        self.leaving = Leaving(self, launcher, manager.hand_over)
        self.path = path
        self.started_at = time.time()
        self.clock = TrustedClock()
        self.loop = loop = asyncio.get_running_loop()
        self.budget = MemoryBudget(config.memory.budget // workers)
        self._pool = HashingPool(worker_count(workers))
        self.metrics = RelayMetrics()
        self.limits = Limits(config.limits.in_flight, self.budget, 1.0 / workers)
        self.registry = Registry(loop)
        self._is_relieved = False
        self.gaps = GapWatch(loop)
        self.probing = Probing(loop, self.registry, workers)
        self.sender_service = service = SenderService(config, self._pool)
        self.senders = SenderDesk(service, lambda: self.snapshot, self.metrics.senders, self._recheck_senders)
        self._builder = SnapshotBuilder(self.limits, self.metrics, service.services, service.state)
        self.snapshot = self._builder.build(config)
        self.team = Team(self, assignment, self.budget, self.gaps) if assignment is not None else None
        always = {"worker": assignment.number} if assignment is not None else None
        is_logged = config.log.access == "stdout"
        self.access_log = AccessLog(loop, 1, always=always) if is_logged else NoAccessLog()
        self.ingress = Ingress(loop, make_context(self), _report_bug, RelayState.STARTING, self.clock.timestamp)
        self.share = FairShare(
            loop,
            self.limits,
            self.ingress.queue,
            senders=lambda: list(self.snapshot.senders.values()),
            links=lambda: [
                ((session.identity.tenant, session.identity.location), session.link)
                for session in self.registry.sessions()
            ],
            is_on=lambda: self.config.limits.queue > 0,
        )
        self.applying = Applying(self, config)
        self.reloader = Reloader(path, loaded, RelayConfig, self.applying.apply, log, told=manager.reloading)
        self._tasks: list[asyncio.Task[Any]] = []
        self.control: ControlServer | None = None
        self.identity: IdentityService | None = None
        self.doors: Doors | None = None
        add_gauges(self)
        add_reload_gauges(self.metrics, "qanat_relay", self.reloader)

    @property
    def config(self) -> RelayConfig:
        """The config in force."""
        return self.snapshot.config

    @property
    def state(self) -> RelayState:
        """How far the process is."""
        return self.ingress.state

    @property
    def in_flight(self) -> int:
        """Pushes under way."""
        return self.limits.in_flight

    @property
    def last_reload(self) -> Outcome | None:
        """What the last reload came to."""
        return self.reloader.last

    # --- start and end

    async def start(self, stop_request: StopRequest) -> None:
        """Bind every listener and serve. CommandError when that is not possible; then `stop` closes what is open."""
        config = self.config
        self.reloader.prime()
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.arriving.prepare(self, stop_request)
        self.sender_service.require(config)
        routes: Routes = {
            **control_routes(self, stop_request, UPGRADE), **desk_routes(self._desk), **sender_routes(self.senders),
            **self.leaving.routes(stop_request),
        }  # fmt: skip
        path = config.state_dir / CONTROL_SOCKET
        if self.team is not None:
            self.team.prepare(stop_request)
            path, routes = self.team.control_socket, self.team.routes(routes)
        self.control = ControlServer(path, routes, inherited=self.arriving.control)
        await self.control.start()
        self.identity = identity = await open_identity(self, self.arriving.patience, is_shared=self.team is not None)
        contexts = require_contexts(config, identity.context)
        self.gaps.start()
        self.share.start()
        self.probing.start()
        self.snapshot = self._builder.build(config, self.snapshot, contexts.trust)
        self.ingress.context = make_context(self)
        self.probing.use(config.probes, self.snapshot.routes)
        self.sender_service.services.keys.prefetch()
        self.doors = make_doors(self, contexts)
        reach("relay.arriving.state-taken")
        if self.team is not None:
            await self.team.open(self.doors.tunnel)
        await self.doors.open()
        await self.arriving.receive_connectors(self, self.doors.tunnel)
        await self.doors.open_observe()
        self.arriving.refuse_strays()
        self.ingress.state = RelayState.SERVING
        self.doors.start_ingress()
        self.control.own()
        await self.arriving.serves()
        if self.team is not None:
            self.team.serves()
        self._tasks = [spawn(self._age(), "credential memory")]
        if self.team is None:  # else the supervisor does that for all workers
            self._tasks.append(spawn(self.reloader.watch(), "reload watcher"))
        if self.is_first:
            self._tasks.append(spawn(identity.run(), "identity upkeep"))
        for door in self.doors.describe():
            log.info("listening", **door)
        log.info(
            "relay started", config=str(self.path), tenants=len(config.tenants),
            routes=len(self.snapshot.routes),
        )  # fmt: skip

    async def drain(self) -> None:
        """Serve what comes for `drain.delay`, let pushes in flight end within `drain.timeout`, then end the tunnels."""
        drain = self.config.drain
        if await self.leaving.drain():
            return
        self.arriving.leaves("leaving")
        self._drains()
        log.info("draining", in_flight=self.limits.in_flight, delay=drain.delay, timeout=drain.timeout)
        await asyncio.sleep(drain.delay)
        await self.drain_rest()

    async def drain_rest(self) -> None:
        """Let pushes in flight end within `drain.timeout`, then end the tunnels."""
        if self.doors is not None:
            await self.doors.close_ingress(self.config.drain.timeout)
            if self.team is not None:
                await self.team.wait_for_all(self.config.drain.timeout)
            self.probing.close()
            self.ingress.state = RelayState.STOPPED
            await self.doors.tunnel.drain(TUNNEL_GRACE)

    async def stop(self) -> None:
        """End everything at once."""
        has_started = self.state is not RelayState.STARTING
        self.probing.close()
        self.ingress.state = RelayState.STOPPED
        await self.leaving.close()
        await cancel(*self._tasks)
        self.sender_service.close()
        if self.team is not None:
            await self.team.close()
        if self.doors is not None:
            await self.doors.close()
        if self.control is not None:
            await self.control.close()
        if self.identity is not None:
            await self.identity.close()
        self.arriving.stop()
        self.share.stop()
        self.gaps.stop()
        self._pool.close()
        if isinstance(self.access_log, AccessLog):
            self.access_log.flush()
        if has_started:
            log.info("relay stopped", in_flight=self.limits.in_flight)

    # --- reload

    def request_reload(self) -> None:
        """Read the config again soon: SIGHUP."""
        if self.team is not None:
            self.team.trial.request()
        elif not self.leaving.forward_reload():
            self.reloader.request()

    async def reload(self) -> Outcome:
        """Read the config and all certificates again, and use them if all of it is good; else keep everything."""
        if self.team is not None:
            return await self.team.trial.reload()
        return await self.reloader.reload()

    def use(self, config: RelayConfig, contexts: Contexts, bound: dict[str, Port]) -> None:
        """Nothing waits from here on: a push sees the old config or the new one, never a mixture."""
        self.snapshot = self._builder.build(config, self.snapshot, contexts.trust)
        self.probing.use(config.probes, self.snapshot.routes)
        self.sender_service.services.keys.prefetch()
        self.ingress.use(make_context(self))
        if self.doors is not None and self.leaving.phase is not Phase.SERVING:
            self.doors.tcp.recheck(self.snapshot.tcp)  # listeners are the next process's
        elif self.doors is not None:
            if self.identity is not None and self.identity.is_authority:
                # What was read in a thread may be older than what the identity has put into force since.
                contexts = contexts._replace(tunnel=self.doors.tunnel.tls)
            self.doors.renew(self.snapshot, contexts, make_policy(config, contexts, self.identity), bound)

    def _recheck_senders(self) -> None:
        self.ingress.use(self.ingress.context)
        if self.doors is not None:
            self.doors.tcp.recheck(self.snapshot.tcp)

    # --- what is asked

    def health(self) -> HealthReport:
        """What /readyz answers."""
        # Who is still asked here speaks for who serves there.
        team = self.team
        is_relieved = self._is_relieved or (team is not None and team.blindness.is_blind and team.blindness.is_relieved)
        report = health.report(self.state, self.snapshot.routes, self.probing.health, is_relieved=is_relieved)
        if team is not None:
            report.detail.update(team.blindness.health())
        return report

    def describe(self) -> str:
        """What the service manager shows."""
        return health.sentence(self.health(), self.registry.sessions(), self.limits.in_flight)

    @property
    def patience(self) -> float:
        """Seconds that draining and stopping may take."""
        drain = self.config.drain
        return drain.delay + drain.timeout + TUNNEL_GRACE + STOP_GRACE

    def render_metrics(self) -> bytes:
        """What /metrics answers."""
        return self.metrics.render()

    def status(self) -> dict[str, Any]:
        """What `cloud-relay status` shows."""
        return status_view(self)

    @property
    def is_first(self) -> bool:
        """Whether this process keeps alive what the relay has once: its own identity, the key of its tokens."""
        return self.team is None or self.team.is_first

    def relieve(self) -> None:
        """Another process serves in this one's place. From here on each answer closes its connection."""
        self._drains()
        self._is_relieved = True

    def serve_again(self) -> None:
        """There is no other process after all."""
        self.ingress.state = RelayState.SERVING
        self._is_relieved = False

    # --- parts

    def _drains(self) -> None:
        self.ingress.state = RelayState.DRAINING
        if self.team is not None:
            self.team.blindness.keep_shut()

    def _desk(self) -> Desk | None:
        return self.identity.desk if self.identity is not None else None

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(FORGET_AFTER)
            for realm in self.snapshot.realms.values():
                realm.remembered.age()
            if self.leaving.is_writer and self.is_first:
                self.sender_service.rotate_keys(self.config)


def _report_bug(error: BaseException, request_id: str) -> None:
    log_limited(log, "error", "bug", "a push failed by a bug of ours", request_id=request_id, exc_info=error)
