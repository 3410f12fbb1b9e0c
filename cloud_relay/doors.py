"""The relay's listeners: bound together at the start, replaced by a reload, closed in the right order."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_relay.client_cas import load_cas, tenant_files
from cloud_relay.config import IngressConfig, RelayConfig
from cloud_relay.config.checks_tcp import tunnel_names
from cloud_relay.expiries import Expiry, file_expiries
from cloud_relay.ingress import Ingress, IngressListener
from cloud_relay.metrics import ListenerMetrics
from cloud_relay.port_plan import PlannedPort, TcpDestinations, plan_ports
from cloud_relay.ports import Destination, NameTable, Port, Sorting
from cloud_relay.ports.acceptor import AT_ONCE
from cloud_relay.tcp import TcpContext, TcpEntrance
from cloud_relay.trust import NO_TRUST, SenderTrust, asked_for, load_trust
from cloud_relay.tunnels import TunnelListener
from shared.exits import CommandError, ExitCode
from shared.listeners import Listening, listen_remedy
from shared.observe import NAME as OBSERVE
from shared.observe import ObserveServer
from shared.pki.files import PkiError
from shared.pki.tls import KeyPair, ingress_server_context, tcp_server_context, tunnel_server_context

if TYPE_CHECKING:
    from cloud_relay.admit import Policy
    from cloud_relay.metrics import RelayMetrics
    from cloud_relay.snapshot import Snapshot
    from shared.config import Listen
    from shared.errors import Fault
    from shared.listeners import Inherited
    from shared.tcp.head import Ends


class Contexts(NamedTuple):
    """The TLS contexts of one config: the tunnel's, one for each ingress (None: plain), and those of TCP
    routes by tenant and name.

    `expiries` are the ends of all certificates that the config names. `cas`: the pins of the CAs that connectors'
    certificates must come from, as `ConfigPolicy` takes them; None where the relay is its own CA. `trust` is what
    senders are known by.
    """

    tunnel: ssl.SSLContext
    ingress: tuple[ssl.SSLContext | None, ...]
    tcp: dict[tuple[str, str], ssl.SSLContext]
    expiries: tuple[Expiry, ...] = ()
    cas: Mapping[str, frozenset[str]] | None = None
    trust: SenderTrust = NO_TRUST


def load_contexts(config: RelayConfig, own: Callable[[], ssl.SSLContext]) -> Contexts:
    """Read all certificates and keys; `own` makes the tunnel's where the relay is its own CA. PkiError names the file
    and the remedy."""
    tls = config.tunnel.tls
    client_cas = asked_for(config)
    ingress = tuple(_ingress_context(ingress, client_cas) for ingress in config.ingress)
    tcp = {
        (tenant, route.name): tcp_server_context(
            KeyPair(route.tls.certificate, route.tls.key), route.tls.client_ca, route.tls.alpn
        )
        for tenant, known in config.tenants.items()
        for route in known.tcp_routes
        if route.tls is not None
    }
    expiries, trust = file_expiries(config), load_trust(config)
    if tls is None:
        return Contexts(own(), ingress, tcp, expiries, trust=trust)
    files = {"": tls.client_ca, **tenant_files(config)}
    tunnel = tunnel_server_context(tls.certificate, tls.key, *files.values())
    return Contexts(tunnel, ingress, tcp, expiries, load_cas(files), trust)


def require_contexts(config: RelayConfig, own: Callable[[], ssl.SSLContext]) -> Contexts:
    """As `load_contexts`, for a program that cannot go on without: CommandError."""
    try:
        return load_contexts(config, own)
    except PkiError as error:
        raise CommandError(ExitCode.CONFIG, str(error), code="certificate-unusable") from error


def _ingress_context(ingress: IngressConfig, client_cas: Sequence[Path]) -> ssl.SSLContext | None:
    if ingress.tls is None:
        return None
    pairs = [KeyPair(pair.certificate, pair.key) for pair in ingress.tls]
    return ingress_server_context(pairs, client_cas if ingress.client_certificates else ())


class Doors:
    """All listeners of one process save the control socket."""

    def __init__(
        self,
        snapshot: Snapshot,
        contexts: Contexts,
        ingress: Ingress,
        metrics: RelayMetrics,
        tunnel: TunnelListener,
        observe: ObserveServer | None,
        inherited: Inherited | None = None,
        switch: Destination | None = None,
    ) -> None:
        """`inherited` are sockets that are not bound but taken, where they listen at an address of the config. `switch`
        gets connectors' connections before the tunnel listener, and hands them on."""
        self._switch = switch
        self._inherited = inherited
        self._config = config = snapshot.config
        self._metrics = metrics
        self._ingress = ingress
        self.expiries = contexts.expiries
        self.tunnel = tunnel
        self.observe = observe
        self.tcp = TcpContext(ingress)
        self.ingress = [
            IngressListener(ingress, metrics.listener(str(one.listen)), context)
            for one, context in zip(config.ingress, contexts.ingress, strict=True)
        ]
        self._plan = self._planned(snapshot, contexts)
        self._ports: dict[str, Port] = {}

    async def open(self) -> None:
        """Bind all ports, and let connectors in: senders are of no use before. CommandError names the address."""
        self._ports = await self._bind_new(self._plan)
        self.tunnel.start()
        for port in self._of_tunnels():
            port.start()

    async def open_observe(self) -> None:
        """Let in whoever asks for health and metrics. CommandError names the address."""
        if self.observe is not None and self._config.observe is not None:
            await _bind(self.observe.start(), "observe.listen", self._config.observe.listen)

    def start_ingress(self) -> None:
        """Let senders in."""
        for port in self._ports.values():
            port.start()

    # --- from one process to the next, which has copies of the sockets

    def listening(self) -> list[Listening]:
        """All sockets that listen, by the config key that asks for them."""
        ports = [(self._plan[key].where, port.sockets) for key, port in self._ports.items()]
        if self.observe is not None:
            ports.append((OBSERVE, self.observe.sockets))
        return [Listening(name, sock) for name, sockets in ports for sock in sockets]

    def pause_tunnels(self, forward: Destination) -> None:
        """Let no more connectors in here; `forward` gets those that come to a port which is the ingress', too."""
        for port in self._of_tunnels():
            port.pause()
        names = tunnel_names(self._config)
        for key, planned in self._plan.items():
            if "tunnel" in planned.kinds and len(planned.kinds) > 1:
                self._ports[key].sorting = planned.sorting.with_names(dict.fromkeys(names, forward))

    def pause_ports(self) -> None:
        """Let in neither senders nor connectors; what is here goes on."""
        for port in self._ports.values():
            port.pause()

    def pause_ingress(self) -> None:
        """Let in nobody; what is here goes on."""
        self.pause_ports()
        if self.observe is not None:
            self.observe.pause()

    def resume_ports(self) -> None:
        """Let connectors and senders in again, after either pause."""
        for key, port in self._ports.items():
            port.sorting = self._plan[key].sorting
            port.start()

    async def resume_observe(self) -> None:
        """Likewise whoever asks for health and metrics. OSError."""
        if self.observe is not None:
            self.observe.pause()
            await self.observe.resume()

    @property
    def open_connections(self) -> int:
        """Connections of senders, also those of which nothing is known yet."""
        ports = sum(port.arrivals for port in self._ports.values())
        return ports + sum(listener.open_connections for listener in self.ingress) + len(self.tcp.connections)

    async def bind_new(self, config: RelayConfig) -> dict[str, Port]:
        """For a reload: bind what the new config has on top. CommandError names the address; nothing is bound then.

        Who gets what comes there is said by `renew`, when nothing can fail any more.
        """
        nobody = {
            (tenant, route.name): _Nobody() for tenant, known in config.tenants.items() for route in known.tcp_routes
        }
        return await self._bind_new(self._plan_ports(config, nobody))

    def renew(self, snapshot: Snapshot, contexts: Contexts, policy: Policy, bound: dict[str, Port]) -> None:
        """Use these for connections from now on, and end what is no longer admitted. `bound` is from `bind_new`."""
        self._config = snapshot.config
        self.expiries = contexts.expiries
        self.tunnel.tls = contexts.tunnel
        self.tunnel.policy = policy
        self.tunnel.recheck()
        for listener, context in zip(self.ingress, contexts.ingress, strict=True):
            listener.tls = context
        self._plan = self._planned(snapshot, contexts)
        for key in self._ports.keys() - self._plan.keys():
            self._ports.pop(key).stop()
        self._ports |= bound
        for key, planned in self._plan.items():
            self._ports[key].sorting = planned.sorting
        for port in bound.values():
            port.start()
        self.tcp.recheck(snapshot.tcp)

    async def close_ingress(self, grace: float) -> None:
        """Take no more senders, and give those that are there `grace` seconds to get their answers."""
        for key, planned in self._plan.items():
            port = self._ports.get(key)
            if port is None:
                continue
            if "tunnel" not in planned.kinds:
                port.stop()
            elif len(planned.kinds) > 1:  # it stays open for connectors, which may have to come back meanwhile
                port.sorting = Sorting(names=NameTable(dict.fromkeys(tunnel_names(self._config), self.tunnel)))
        async with asyncio.TaskGroup() as group:
            for listener in self.ingress:
                group.create_task(listener.close(grace), name="ingress drain")
            group.create_task(self.tcp.close(grace), name="tcp drain")

    def cut_off(self, fault: Fault) -> None:
        """End the connections of senders that are no requests, for this reason: the next request is answered anyway."""
        for push in list(self._ingress.upgraded):
            push.end(fault)
        for connection in list(self.tcp.connections):
            connection.fail(fault)

    def free_ports(self) -> None:
        """Close all ports, for somebody else to bind; what was let in goes on."""
        self._stop_ports()
        if self.observe is not None:
            self.observe.stop_listening()

    async def close(self) -> None:
        """Close everything at once, and wait until the ports are free."""
        self._stop_ports()
        for listener in self.ingress:
            listener.abort()
        self.tcp.abort()
        await self.tunnel.close()
        if self.observe is not None:
            await self.observe.close()

    def describe(self) -> list[dict[str, Any]]:
        """Where it is listened, ports as they were bound."""
        listed: list[dict[str, Any]] = []
        for key, planned in self._plan.items():
            port = self._ports.get(key)
            bound = _joined(port.addresses) if port is not None else []
            shown: dict[str, Any] = {
                "kind": "+".join(planned.kinds), "listen": str(planned.listen), "bound": bound, "tls": planned.is_tls,
            }  # fmt: skip
            if "ingress" in planned.kinds:
                shown["connections"] = self._metrics.listener(str(planned.listen)).open
            listed.append(shown)
        if self.observe is not None and self._config.observe is not None:
            where = self._config.observe.listen
            bound = [f"{where._replace(port=self.observe.port)}"]
            listed.append({"kind": "observe", "listen": str(where), "bound": bound, "tls": False})
        return listed

    # --- within

    def _planned(self, snapshot: Snapshot, contexts: Contexts) -> dict[str, PlannedPort]:
        self.tcp.tenants = len({tenant for tenant, _ in snapshot.tcp})
        entrances = {key: TcpEntrance(self.tcp, route, contexts.tcp.get(key)) for key, route in snapshot.tcp.items()}
        return self._plan_ports(snapshot.config, entrances)

    def _plan_ports(self, config: RelayConfig, tcp: TcpDestinations) -> dict[str, PlannedPort]:
        switch = self._switch
        return plan_ports(config, switch or self.tunnel, self.ingress, tcp, must_look=switch is not None)

    async def _bind_new(self, plan: dict[str, PlannedPort]) -> dict[str, Port]:
        bound: dict[str, Port] = {}
        try:
            for key, planned in plan.items():
                if key not in self._ports:
                    port = bound[key] = self._new_port(planned)
                    host = planned.listen.host or None
                    binding = port.bind(host, planned.listen.port, self._inherited, planned.where)
                    await _bind(binding, planned.where, planned.listen)
        except CommandError:
            for port in bound.values():
                port.stop()
            raise
        return bound

    def _new_port(self, planned: PlannedPort) -> Port:
        name = str(planned.listen)
        metrics = ListenerMetrics(name) if planned.kinds == ("tunnel",) else self._metrics.listener(name)
        # Where other workers accept there, too, none of them takes a whole burst.
        at_once = 1 if self._switch is not None else AT_ONCE
        return Port(self._ingress.loop, metrics, planned.sorting, at_once)

    def _of_tunnels(self) -> list[Port]:
        """The ports that are for connectors only."""
        return [self._ports[key] for key, planned in self._plan.items() if planned.kinds == ("tunnel",)]

    def _stop_ports(self) -> None:
        for port in self._ports.values():
            port.stop()
        self._ports = {}


class _Nobody:
    """In place of a route's entrance until there is one; a port that is bound but not started hands nothing on."""

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        sock.close()


def _joined(addresses: list[tuple[str, int]]) -> list[str]:
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]


async def _bind(binding: Coroutine[Any, Any, None], key: str, address: Listen) -> None:
    try:
        await binding
    except OSError as error:
        raise cannot_listen(address, key, error) from error


def cannot_listen(address: Listen, key: str, error: OSError) -> CommandError:
    """What a command ends with that cannot have the address which this key of the config asks for."""
    # asyncio repeats the address in `strerror`, and a failed look-up of a name has no errno of the system's.
    reason = os.strerror(error.errno) if isinstance(error.errno, int) and error.errno > 0 else str(error)
    return CommandError(
        ExitCode.FAILED,
        f"cannot listen on {address} ({key}): {reason}",
        listen_remedy(error),
        "cannot-listen",
    )
