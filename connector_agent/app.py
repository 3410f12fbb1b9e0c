"""The connector's composition root: makes everything from one config file, starts and ends it, and reloads.

What outlives a reload: counters, tunnels, deliveries under way, and the connections of targets that did not change.
What a reload replaces, in one assignment: the table of targets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from connector_agent import health
from connector_agent.build import Materials, make_targets, make_tcp_targets, read_materials, target_certificates
from connector_agent.certificates import InUse, warnings
from connector_agent.config import ConnectorConfig
from connector_agent.control import identity_routes
from connector_agent.dispatch import Dispatcher
from connector_agent.gauges import add_gauges, clock_of
from connector_agent.health import ConnectorState
from connector_agent.metrics import ConnectorMetrics
from connector_agent.probe.service import ProbeService
from connector_agent.reloading import describe_changes, restart_keys
from connector_agent.status import status_view
from connector_agent.targets import Target, TargetTable
from connector_agent.tcp.service import TcpService
from connector_agent.tcp.target import TcpTarget
from connector_agent.tunnels import IdentityView
from shared.access_log import AccessLog
from shared.config import Loaded
from shared.control import CONTROL_SOCKET, ControlServer
from shared.control_api import control_routes
from shared.errors import LocalFault
from shared.exits import CommandError, ExitCode
from shared.listeners import listen_remedy
from shared.logs import get_logger, log_limited
from shared.observe import HealthReport, ObserveServer
from shared.outcome import Outcome
from shared.process import StopRequest
from shared.protocol import MemoryBudget
from shared.reload_metrics import add_reload_gauges
from shared.reloading import Reloader
from shared.service_manager import ServiceManager
from shared.tasks import cancel, spawn
from shared.timers import precise_clock
from shared.tunnel.gaps import GapWatch

LOOK_AT_CERTIFICATES: Final = 3600.0
"""Seconds after which what is about to expire is told again in the log."""

STOP_GRACE: Final = 5.0
"""Seconds that ending everything may take after a drain, on a busy machine."""

log = get_logger("connector")


class Tunnels(Protocol):
    """The tunnels to all relays, kept up for ever."""

    @property
    def identity(self) -> IdentityView | None:
        """Whom they are dialled as."""

    @property
    def open_count(self) -> int:
        """Tunnels by which a push could come now."""

    def start(self) -> None:
        """Dial, and go on dialling."""

    def update_targets(self, targets: Mapping[str, str]) -> None:
        """Tell every relay what is exposed from now on: kinds by name."""

    def describe(self) -> list[dict[str, Any]]:
        """Each tunnel for `status`, JSON-able."""

    async def drain(self, seconds: float) -> None:
        """Take no new pushes, let those in flight end within so many seconds, and say goodbye."""

    async def close(self) -> None:
        """End all tunnels within a second or so; what their streams have said until now leaves first."""


class ConnectorApp:
    """One connector. Make it inside a running event loop, `start` it once, `stop` it once."""

    def __init__(
        self,
        path: Path,
        loaded: Loaded[ConnectorConfig],
        make_tunnels: Callable[[ConnectorApp], Tunnels],
        materials: dict[str, Materials] | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        """Reads what targets name, unless `materials` holds it. `manager` is told of reloads. Raises PkiError."""
        config = loaded.config
        self.path = path
        self.state = ConnectorState.STARTING
        self.started_at = time.time()
        told = (manager or ServiceManager()).reloading
        self._reloader = Reloader(path, loaded, ConnectorConfig, self._apply, log, told=told)
        self._loop = loop = asyncio.get_running_loop()
        self.budget = MemoryBudget(config.memory.budget)
        self.gaps = GapWatch(loop)
        self.metrics = ConnectorMetrics()
        found = read_materials(config) if materials is None else materials
        self.probes = ProbeService(self._find_target, loop)
        self.targets = TargetTable(make_targets(config, found, self.metrics, loop, self._on_connect_fault))
        self._access_log = AccessLog(loop, 1) if config.log.access == "stdout" else None
        self.tcp = TcpService(
            make_tcp_targets(config, self.metrics), loop, precise_clock(loop), self.metrics, self._access_log,
            self._on_connect_fault,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            self.targets, loop, self.metrics, self._access_log, self.gaps, self.tcp, self.probes
        )  # fmt: skip
        self.tunnels = make_tunnels(self)
        self._tasks: list[asyncio.Task[Any]] = []
        self._control: ControlServer | None = None
        self._observe: ObserveServer | None = None
        self._certificates = target_certificates(found)
        add_gauges(self)
        add_reload_gauges(self.metrics, "qanat_connector", self._reloader)

    @property
    def config(self) -> ConnectorConfig:
        """The config in force."""
        return self._reloader.loaded.config

    @property
    def in_flight(self) -> int:
        """Pushes under way."""
        return self.dispatcher.in_flight

    @property
    def last_reload(self) -> Outcome | None:
        """What the last reload came to."""
        return self._reloader.last

    @property
    def observe_port(self) -> int | None:
        """Where /readyz is, if anywhere."""
        return self._observe.port if self._observe is not None else None

    # --- start and end

    async def start(self, stop_request: StopRequest) -> None:
        """Open the doors and dial. CommandError, with nothing left open, when that is not possible."""
        config = self.config
        self._reloader.prime()
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        routes = {**control_routes(self, stop_request), **identity_routes(self)}
        control = ControlServer(config.state_dir / CONTROL_SOCKET, routes)
        await control.start()
        self._control = control
        if config.observe is not None:
            await self._open_observe(config)
        self.gaps.start()
        self.tunnels.start()
        self.state = ConnectorState.SERVING
        self._tasks = [
            spawn(self._reloader.watch(), "reload watcher"), spawn(self._watch_certificates(), "certificate watcher")
        ]  # fmt: skip
        log.info(
            "connector started",
            config=str(self.path),
            relays=[str(relay) for relay in config.relays],
            targets=list(self.announcement()),
            observe=self.observe_port,
        )

    async def drain(self) -> None:
        """Announce the end to the relays, and let pushes in flight end within `drain.timeout`."""
        timeout = self.config.drain.timeout
        self.state = ConnectorState.DRAINING
        log.info("draining", in_flight=self.dispatcher.in_flight, timeout=timeout)
        self.probes.close()
        await self.tunnels.drain(timeout)

    async def stop(self) -> None:
        """End everything, in a second or so. Safe after a start that failed, and after a drain."""
        has_started = self.state is not ConnectorState.STARTING
        self.state = ConnectorState.STOPPED
        await cancel(*self._tasks)
        lost = self.dispatcher.in_flight
        self.probes.close()
        self.dispatcher.abort("connector-draining")
        await self.tunnels.close()
        self.targets.close()
        if self._observe is not None:
            await self._observe.close()
        if self._control is not None:
            await self._control.close()
        self.gaps.stop()
        if self._access_log is not None:
            self._access_log.flush()
        if has_started:
            log.info("connector stopped", in_flight=lost)

    # --- reload

    def request_reload(self) -> None:
        """Read the config again soon: SIGHUP."""
        self._reloader.request()

    async def reload(self) -> Outcome:
        """Read the config, secrets and certificates again, and use them if all is good; else keep everything."""
        return await self._reloader.reload()

    async def _apply(self, loaded: Loaded[ConnectorConfig]) -> Outcome:
        config = loaded.config
        if keys := restart_keys(self.config, config):
            return Outcome.needs_restart(keys)
        materials = await asyncio.to_thread(read_materials, config)
        identity = self.tunnels.identity
        loaded_identity = await asyncio.to_thread(identity.read) if identity is not None else None
        changes = self._use(config, materials)
        return Outcome.taken(changes + (identity.use(loaded_identity) if identity is not None else []))

    def _use(self, new: ConnectorConfig, materials: dict[str, Materials]) -> list[str]:
        """From here on nothing can fail, and nothing waits: a push sees the old targets or the new ones."""
        old = self.config
        announced = self.announcement()
        targets = make_targets(new, materials, self.metrics, self._loop, self._on_connect_fault)
        changes = self.targets.replace(targets).joined(self.tcp.replace(make_tcp_targets(new, self.metrics)))
        self._certificates = target_certificates(materials)
        self.dispatcher.forget()
        self.dispatcher.recheck()
        self.probes.keep_only({**self.targets.by_name, **self.tcp.by_name})
        self.metrics.keep_only(set(self.targets.by_name))
        self.metrics.tcp.keep_only(set(self.tcp.by_name))
        if self.announcement() != announced:
            self.tunnels.update_targets(self.announcement())
        return describe_changes(old, new, changes)

    # --- what is asked

    def announcement(self) -> dict[str, str]:
        """What is exposed: kind by name, as HELLO and TARGETS carry them."""
        return self.targets.announcement() | dict.fromkeys(self.tcp.by_name, "tcp")

    def health(self) -> HealthReport:
        """What /readyz answers."""
        return health.report(self.state, self.tunnels.open_count, self.target_states())

    def describe(self) -> str:
        """What the service manager shows."""
        return health.sentence(self.health(), self.tunnels.describe(), self.in_flight)

    @property
    def patience(self) -> float:
        """Seconds that draining and stopping may take."""
        return self.config.drain.timeout + STOP_GRACE

    def target_states(self) -> dict[str, str]:
        """How each target is: "ok", "failing", or "unknown"."""
        standing = self.probes.standing
        states = {name: health.target_state(one, standing(one)) for name, one in self.targets.by_name.items()}
        return states | {name: health.tcp_target_state(one, standing(one)) for name, one in self.tcp.by_name.items()}

    def render_metrics(self) -> bytes:
        """What /metrics answers."""
        return self.metrics.render()

    def status(self) -> dict[str, Any]:
        """What `connector-agent status` shows."""
        return status_view(self)

    def certificates(self) -> list[InUse]:
        """Every certificate in use: the connector's own, its roots, those of targets."""
        identity = self.tunnels.identity
        return (identity.certificates() if identity is not None else []) + self._certificates

    def identity_view(self) -> dict[str, Any]:
        """What `certs show` and `status` say of certificates."""
        identity, every = self.tunnels.identity, self.certificates()
        return {
            "identity": identity.describe() if identity is not None else None,
            "certificates": [one.describe() for one in every],
            "warnings": self._clock_warnings() + warnings(every, self.now()),
        }

    def now(self) -> datetime:
        """By the clock that certificates are judged by."""
        identity = self.tunnels.identity
        return identity.now() if identity is not None else datetime.now(UTC)

    # --- parts

    async def _watch_certificates(self) -> None:
        """Say in the log what comes to its end, from long before on."""
        while True:
            for text in self.identity_view()["warnings"]:
                log.warning("certificates need attention", detail=text)
            await asyncio.sleep(LOOK_AT_CERTIFICATES)

    async def _open_observe(self, config: ConnectorConfig) -> None:
        if config.observe is None:
            return
        listen = config.observe.listen
        observe = ObserveServer(listen, self.health, self.metrics.render)
        try:
            await observe.start()
        except OSError as error:
            await observe.close()
            raise CommandError(
                ExitCode.FAILED,
                f"cannot listen on {listen} (observe.listen): {error.strerror or error}",
                listen_remedy(error),
                "cannot-listen",
            ) from error
        self._observe = observe

    def _clock_warnings(self) -> list[str]:
        clock = clock_of(self)
        if not clock.get("is_doubtful"):
            return []
        return [f"this host's clock is off the relay's by {clock['error_s']:+} s, and is not believed: mend it"]

    def _find_target(self, name: str) -> Target | TcpTarget | None:
        return self.targets.get(name) or self.tcp.by_name.get(name)

    def _on_connect_fault(self, target: str, fault: LocalFault) -> None:
        self.probes.doubt(target)
        _log_connect_fault(target, fault)


def _log_connect_fault(target: str, fault: LocalFault) -> None:
    """The one place where a target's address and the cause are told: this side's log."""
    log_limited(
        log, "warning", f"connect {target}", "cannot connect to the target",
        target=target, code=fault.fault.code, detail=fault.detail,
    )  # fmt: skip
