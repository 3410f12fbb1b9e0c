"""The relay's composition root: makes everything from one config file, starts and ends it, and reloads.

What outlives a reload: counters, gates, the registry of tunnels, the listeners. What a reload replaces, in one
assignment each: the snapshot that pushes work on, the TLS contexts, and what the tunnel listener lets in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cloud_relay import health
from cloud_relay.config import RelayConfig, find_changes, restart_keys
from cloud_relay.doors import Contexts, Doors, load_contexts, require_contexts
from cloud_relay.expiries import describe_changes
from cloud_relay.fair_share import FairShare
from cloud_relay.gauges import add_gauges
from cloud_relay.handover.arriving import Arriving
from cloud_relay.handover.leaving import Leaving, Phase
from cloud_relay.hashing import HashingPool, worker_count
from cloud_relay.health import RelayState
from cloud_relay.identity.desk import Desk, desk_routes
from cloud_relay.identity.office import rehearse
from cloud_relay.identity.records import ConnectorKey
from cloud_relay.identity.service import IdentityService, open_identity
from cloud_relay.ingress import Ingress, IngressContext, IngressSettings
from cloud_relay.limits import Limits
from cloud_relay.metrics import RelayMetrics
from cloud_relay.ports import Port
from cloud_relay.probing.service import Probing
from cloud_relay.registry import Registry
from cloud_relay.sender_control import sender_routes, senders_view
from cloud_relay.sender_service import SenderService
from cloud_relay.senders import Authenticator
from cloud_relay.snapshot import SnapshotBuilder
from cloud_relay.status import status_view
from cloud_relay.tunnel_parts import House, make_policy, make_tunnel_listener
from cloud_relay.workers.covering import until_covered
from cloud_relay.workers.team import Team
from shared.access_log import AccessLog, NoAccessLog
from shared.clock import TrustedClock
from shared.config import Loaded
from shared.control import CONTROL_SOCKET, ControlServer, Routes
from shared.control_api import control_routes
from shared.crash_points import reach
from shared.exits import CommandError
from shared.launch import Launcher
from shared.logs import get_logger, log_limited
from shared.observe import HealthReport, ObserveServer
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

TUNNEL_GRACE: Final = 2.0
"""Seconds that tunnels get at the end, to say goodbye in good order."""

SERVE_OUT_LOOK: Final = 0.1
"""Seconds between looks at whether the last connection has ended."""

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
        self._started_with = config = loaded.config
        share = assignment.workers if assignment is not None else 1
        self.arriving = arriving or Arriving()
        manager = manager or ServiceManager()
        self.leaving = Leaving(self, launcher, manager.hand_over)
        self.path = path
        self.started_at = time.time()
        self.loop = loop = asyncio.get_running_loop()
        self._budget = MemoryBudget(config.memory.budget // share)
        self._pool = HashingPool(worker_count(share))
        self.metrics = RelayMetrics()
        self.limits = Limits(max(1, config.limits.in_flight // share), self._budget, 1.0 / share)
        self.registry = Registry(loop)
        self._share = share
        self._is_relieved = False
        self._gaps = GapWatch(loop)
        self.probing = Probing(loop, self.registry, share)
        self._service = SenderService(config, self._pool)
        self._builder = SnapshotBuilder(self.limits, self.metrics, self._service.services, self._service.state)
        self.snapshot = self._builder.build(config)
        self.team = Team(self, assignment, self._budget, self._gaps) if assignment is not None else None
        always = {"worker": assignment.number} if assignment is not None else None
        is_logged = config.log.access == "stdout"
        self._access_log = AccessLog(loop, 1, always=always) if is_logged else NoAccessLog()
        self._ingress = Ingress(loop, self._context(), _report_bug, RelayState.STARTING)
        self.share = FairShare(
            loop,
            self.limits,
            self._ingress.queue,
            senders=lambda: list(self.snapshot.senders.values()),
            links=lambda: [(session.identity.tenant, session.link) for session in self.registry.sessions()],
            is_on=lambda: self.config.limits.queue > 0,
        )
        self._reloader = Reloader(path, loaded, RelayConfig, self._apply, log, told=manager.reloading)
        self._tasks: list[asyncio.Task[Any]] = []
        self.control: ControlServer | None = None
        self.clock = TrustedClock()
        self.identity: IdentityService | None = None
        self.doors: Doors | None = None
        add_gauges(self)
        add_reload_gauges(self.metrics, "qanat_relay", self._reloader)

    @property
    def config(self) -> RelayConfig:
        """The config in force."""
        return self.snapshot.config

    @property
    def state(self) -> RelayState:
        """How far the process is."""
        return self._ingress.state

    @property
    def in_flight(self) -> int:
        """Pushes under way."""
        return self.limits.in_flight

    @property
    def last_reload(self) -> Outcome | None:
        """What the last reload came to."""
        return self._reloader.last

    # --- start and end

    async def start(self, stop_request: StopRequest) -> None:
        """Bind every listener and serve. CommandError when that is not possible; then `stop` closes what is open."""
        config = self.config
        self._reloader.prime()
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.arriving.prepare(self, stop_request)
        self._service.require(config)
        routes: Routes = {
            **control_routes(self, stop_request), **desk_routes(self._desk), **sender_routes(self),
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
        self._gaps.start()
        self.share.start()
        self.probing.start()
        self.snapshot = self._builder.build(config, self.snapshot, contexts.trust)
        self._ingress.context = self._context()
        self.probing.use(config.probes, self.snapshot.routes)
        self._service.services.keys.prefetch()
        self.doors = self._make_doors(contexts)
        reach("relay.arriving.state-taken")
        if self.team is not None:
            await self.team.open(self.doors.tunnel)
        await self.doors.open()
        await self.arriving.receive_connectors(self, self.doors.tunnel)
        await self.doors.open_observe()
        self.arriving.refuse_strays()
        self._ingress.state = RelayState.SERVING
        self.doors.start_ingress()
        self.control.own()
        await self.arriving.serves()
        if self.team is not None:
            self.team.serves()
        self._tasks = [
            spawn(self._reloader.watch(), "reload watcher"),
            spawn(self._age(), "credential memory"),
        ]
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
        self._ingress.state = RelayState.DRAINING
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
            self._ingress.state = RelayState.STOPPED
            await self.doors.tunnel.drain(TUNNEL_GRACE)

    async def stop(self) -> None:
        """End everything at once."""
        has_started = self.state is not RelayState.STARTING
        self.probing.close()
        self._ingress.state = RelayState.STOPPED
        await self.leaving.close()
        await cancel(*self._tasks)
        self._service.close()
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
        self._gaps.stop()
        self._pool.close()
        if isinstance(self._access_log, AccessLog):
            self._access_log.flush()
        if has_started:
            log.info("relay stopped", in_flight=self.limits.in_flight)

    # --- from one process to the next

    def rehearse(self) -> None:
        """Whether this config could be served with the state that another process holds. May block. CommandError."""
        require_contexts(self.config, lambda: rehearse(self.config, self.clock))

    def leave(self, pid: int) -> None:
        """The process `pid` serves now. From here on each answer closes its connection."""
        self._ingress.state = RelayState.DRAINING
        self.arriving.leaves("succeeded")
        log.info("a new process serves; this one serves out its connections", pid=pid)

    def serve_again(self) -> None:
        """There is no other process after all."""
        self._ingress.state = RelayState.SERVING

    def follow_senders(self) -> None:
        """Take in who was switched off or on by another process. PkiError, OSError."""
        changed = self._service.follow()
        for key in changed & self.snapshot.senders.keys():
            self.snapshot.senders[key].is_disabled = key in self._service.state.disabled()
        if changed:
            self._end_what_may_not_be()

    def _end_what_may_not_be(self) -> None:
        self._ingress.use(self._ingress.context)
        if self.doors is not None:
            self.doors.tcp.recheck(self.snapshot.tcp)

    # --- reload

    def request_reload(self) -> None:
        """Read the config again soon: SIGHUP."""
        if not self.leaving.forward_reload():
            self._reloader.request()

    async def reload(self) -> Outcome:
        """Read the config and all certificates again, and use them if all of it is good; else keep everything."""
        return await self._reloader.reload()

    async def _apply(self, loaded: Loaded[RelayConfig]) -> Outcome:
        config = loaded.config
        if self.leaving.phase is not Phase.LEAVING and (keys := restart_keys(self._started_with, config)):
            return Outcome.needs_restart(keys)
        if self.team is not None and (keys := self.team.moved(config)):
            return Outcome.needs_restart(keys)
        if self.identity is None:
            return Outcome.refused(["the relay is starting"])
        if self.leaving.phase is Phase.PASSING:
            return Outcome.refused(["an upgrade is under way: reload when it is through"])
        contexts = await asyncio.to_thread(load_contexts, config, self.identity.context)
        bound: dict[str, Port] = {}
        if self.leaving.phase is Phase.SERVING:
            self._service.open(config)
        if self.doors is not None and self.leaving.phase is Phase.SERVING:
            try:
                bound = await self.doors.bind_new(config)
            except CommandError as error:
                return Outcome.refused([error])
        before = self.doors.expiries if self.doors is not None else ()
        outcome = Outcome.taken(
            [*find_changes(self.config, config), *describe_changes(before, contexts.expiries)]
        )  # fmt: skip
        self._use(config, contexts, bound)
        return outcome

    def _use(self, config: RelayConfig, contexts: Contexts, bound: dict[str, Port]) -> None:
        """Nothing waits from here on: a push sees the old config or the new one, never a mixture."""
        self.snapshot = self._builder.build(config, self.snapshot, contexts.trust)
        self.probing.use(config.probes, self.snapshot.routes)
        self._service.services.keys.prefetch()
        self._ingress.use(self._context())
        if self.doors is not None and self.leaving.phase is not Phase.SERVING:
            self.doors.tcp.recheck(self.snapshot.tcp)  # listeners are the next process's
        elif self.doors is not None:
            if self.identity is not None and self.identity.is_authority:
                # What was read in a thread may be older than what the identity has put into force since.
                contexts = contexts._replace(tunnel=self.doors.tunnel.tls)
            self.doors.renew(self.snapshot, contexts, make_policy(config, contexts, self.identity), bound)

    # --- what is asked

    def health(self) -> HealthReport:
        """What /readyz answers."""
        # Who is still asked here speaks for who serves there.
        is_relieved = self._is_relieved or self.leaving.phase is Phase.LEAVING
        return health.report(self.state, self.snapshot.routes, self.probing.health, is_relieved=is_relieved)

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

    def not_allowed(self) -> Mapping[ConnectorKey, Sequence[str]]:
        """Targets that connectors announce although their join tokens did not allow them."""
        guard = self.doors.tunnel.guard if self.doors is not None else None
        return guard.not_allowed if guard is not None else {}

    # --- several processes

    @property
    def is_first(self) -> bool:
        """Whether this process keeps alive what the relay has once: its own identity, the key of its tokens."""
        return self.team is None or self.team.is_first

    async def serve_out(self) -> None:
        """Let in nobody any more, have the connectors open tunnels to the siblings, and serve the connections that
        there are until they end, `drain.upgrade` at most.

        Each answer closes its connection; idle ones end by themselves.
        """
        if self.doors is None:
            return
        self._ingress.state = RelayState.DRAINING
        self._is_relieved = True
        self.doors.pause_ports()
        drain = self.config.drain
        until = self.loop.time() + drain.upgrade
        if self.team is not None:
            await until_covered(self.doors.tunnel, self.registry, self.team.wide, drain.upgrade + drain.timeout)
        while self.doors.open_connections and self.loop.time() < until:  # noqa: ASYNC110 - of many kinds, none tells
            await asyncio.sleep(SERVE_OUT_LOOK)

    def attached(self) -> list[Attached]:
        """All sessions of the relay, at whichever worker."""
        here = [
            Attached(one.identity.key, one.identity.fingerprint, one.attached_at) for one in self.registry.sessions()
        ]
        rivals = self.team.wide.rivals() if self.team is not None else []
        return here + [Attached(one.connector, one.fingerprint, one.since) for one in rivals]

    def hint(self, connector: ConnectorKey, within: float) -> int:
        """Ask a connector for a renewal within so many seconds; 0 where it has no tunnel that could carry the hint."""
        here = self.doors.tunnel.hint(connector, within) if self.doors is not None else 0
        if here or self.team is None:
            return here
        self.team.host.tell({"hint": connector, "within": within})
        return int(any(one.connector == connector for one in self.team.wide.rivals()))

    # --- senders

    def set_sender_disabled(self, tenant: str, name: str, *, is_disabled: bool) -> bool:
        """Switch a sender off or on, from its next push on; False if it was so already. LookupError if there is none.
        OSError, and nothing is changed, if it cannot be written down."""
        sender = self.snapshot.senders[tenant, name]
        has_changed = self._service.state.set_disabled((tenant, name), time.time() if is_disabled else None)
        sender.is_disabled = is_disabled
        self._end_what_may_not_be()
        if has_changed:
            log.warning("sender switched off" if is_disabled else "sender switched on", tenant=tenant, sender=name)
        return has_changed

    def senders(self) -> list[dict[str, Any]]:
        """What `cloud-relay senders list` shows."""
        return senders_view(self.config, self._service.state.disabled(), self.metrics.senders)

    def queued(self) -> int:
        """Pushes that wait for their turn."""
        return self._ingress.queue.waiting

    def queue_limit(self) -> int:
        """How many may."""
        return self._ingress.context.settings.queue

    def memory(self) -> dict[str, int]:
        """Bytes of pushes under way, and how many may be."""
        return {"used": self._budget.used, "budget": self._budget.limit, "victims": self._budget.victims}

    # --- parts

    def _context(self) -> IngressContext:
        config, share = self.config.limits, self._share
        return IngressContext(
            routing=self.snapshot.table,
            authenticator=Authenticator(),
            limits=self.limits,
            registry=self.registry if self.team is None else self.team.wide,
            budget=self._budget,
            access_log=self._access_log,
            health=self.probing.book,
            settings=IngressSettings(
                max_connections=max(1, config.connections // share),
                max_connections_per_source=config.connections_per_source,
                queue=-(-config.queue // share),  # rounded up: 0 would mean none
                queue_wait=config.queue_wait,
            ),
        )

    def _make_doors(self, contexts: Contexts) -> Doors:
        config, inherited, observe, switch = self.config, self.arriving.inherited, None, None
        house = House(self.loop, self.registry, self._budget, self._gaps, self.clock, self.identity)
        tunnel = make_tunnel_listener(house, config, contexts)
        self.metrics.tunnels = tunnel.counts
        self.metrics.enrolment = tunnel.enrolment
        self.metrics.guard = tunnel.guard
        tunnel.count_in(self.metrics.connectors)
        if self.team is not None:
            inherited, switch = self.team.inherited, self.team.entrance(tunnel)
        if config.observe is not None and self.is_first:
            metrics = self.metrics.render if self.team is None else self.team.metrics
            observe = ObserveServer(config.observe.listen, self.health, metrics, inherited)
        return Doors(self.snapshot, contexts, self._ingress, self.metrics, tunnel, observe, inherited, switch)

    def _desk(self) -> Desk | None:
        return self.identity.desk if self.identity is not None else None

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(FORGET_AFTER)
            for realm in self.snapshot.realms.values():
                realm.remembered.age()
            if self.leaving.is_writer and self.is_first:
                self._service.rotate_keys(self.config)


class Attached(NamedTuple):
    """A session: whose, by which certificate, and since when (the loop's time)."""

    connector: ConnectorKey
    fingerprint: str
    since: float


def _report_bug(error: BaseException, request_id: str) -> None:
    log_limited(log, "error", "bug", "a push failed by a bug of ours", request_id=request_id, exc_info=error)
