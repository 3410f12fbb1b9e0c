"""The relay's listeners: bound together at the start, given new certificates by a reload, closed in the right order."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_relay.client_cas import load_cas, tenant_files
from cloud_relay.config import IngressConfig, RelayConfig
from cloud_relay.expiries import Expiry, file_expiries
from cloud_relay.ingress import Ingress, IngressListener
from cloud_relay.trust import NO_TRUST, SenderTrust, asked_for, load_trust
from cloud_relay.tunnels import TunnelListener
from shared.exits import CommandError, ExitCode
from shared.observe import ObserveServer
from shared.pki.files import PkiError
from shared.pki.tls import KeyPair, ingress_server_context, tunnel_server_context

if TYPE_CHECKING:
    from cloud_relay.admit import Policy
    from cloud_relay.metrics import RelayMetrics
    from shared.config import Listen


class Contexts(NamedTuple):
    """The TLS contexts of one config: the tunnel's, and one for each ingress, None for a plain one.

    `expiries` are the ends of all certificates that the config names. `cas`: the pins of the CAs that connectors'
    certificates must come from, as `ConfigPolicy` takes them; None where the relay is its own CA. `trust` is what
    senders are known by.
    """

    tunnel: ssl.SSLContext
    ingress: tuple[ssl.SSLContext | None, ...]
    expiries: tuple[Expiry, ...] = ()
    cas: Mapping[str, frozenset[str]] | None = None
    trust: SenderTrust = NO_TRUST


def load_contexts(config: RelayConfig, own: Callable[[], ssl.SSLContext]) -> Contexts:
    """Read all certificates and keys; `own` makes the tunnel's where the relay is its own CA. PkiError names the file
    and the remedy."""
    tls = config.tunnel.tls
    client_cas = asked_for(config)
    ingress = tuple(_ingress_context(ingress, client_cas) for ingress in config.ingress)
    expiries, trust = file_expiries(config), load_trust(config)
    if tls is None:
        return Contexts(own(), ingress, expiries, trust=trust)
    files = {"": tls.client_ca, **tenant_files(config)}
    tunnel = tunnel_server_context(tls.certificate, tls.key, *files.values())
    return Contexts(tunnel, ingress, expiries, load_cas(files), trust)


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
        config: RelayConfig,
        contexts: Contexts,
        ingress: Ingress,
        metrics: RelayMetrics,
        tunnel: TunnelListener,
        observe: ObserveServer | None,
    ) -> None:
        self._config = config
        self.expiries = contexts.expiries
        self.tunnel = tunnel
        self.observe = observe
        self.ingress = [
            IngressListener(ingress, metrics.listener(str(one.listen)), context)
            for one, context in zip(config.ingress, contexts.ingress, strict=True)
        ]

    async def open(self) -> None:
        """Bind everything: tunnels first, for senders are of no use before. CommandError names the address."""
        config = self._config
        await _bind(self.tunnel.listen(config.tunnel.listen.host or None, config.tunnel.listen.port), "tunnel.listen",
                    config.tunnel.listen)  # fmt: skip
        for index, (listener, one) in enumerate(zip(self.ingress, config.ingress, strict=True)):
            await _bind(
                listener.listen(one.listen.host or None, one.listen.port), f"ingress[{index}].listen", one.listen
            )
        if self.observe is not None and config.observe is not None:
            await _bind(self.observe.start(), "observe.listen", config.observe.listen)

    def renew(self, contexts: Contexts, policy: Policy) -> None:
        """Use these certificates for connections from now on, and end the tunnels that the policy no longer admits."""
        self.expiries = contexts.expiries
        self.tunnel.tls = contexts.tunnel
        self.tunnel.policy = policy
        self.tunnel.recheck()
        for listener, context in zip(self.ingress, contexts.ingress, strict=True):
            listener.tls = context

    async def close_ingress(self, grace: float) -> None:
        """Take no more senders, and give those that are there `grace` seconds to get their answers."""
        async with asyncio.TaskGroup() as group:
            for listener in self.ingress:
                group.create_task(listener.close(grace), name="ingress drain")

    async def close(self) -> None:
        """Close everything at once, and wait until the ports are free."""
        for listener in self.ingress:
            listener.abort()
        await self.tunnel.close()
        if self.observe is not None:
            await self.observe.close()

    def describe(self) -> list[dict[str, Any]]:
        """Where it is listened, ports as they were bound."""
        config = self._config
        listed: list[dict[str, Any]] = [
            {
                "kind": "tunnel",
                "listen": str(config.tunnel.listen),
                "bound": _joined(self.tunnel.addresses),
                "tls": True,
            }
        ]
        for listener, one in zip(self.ingress, config.ingress, strict=True):
            listed.append(
                {
                    "kind": "ingress",
                    "listen": str(one.listen),
                    "bound": _joined(listener.addresses),
                    "tls": one.tls is not None,
                    "connections": listener.open_connections,
                }
            )
        if self.observe is not None and config.observe is not None:
            where = config.observe.listen
            bound = [f"{where._replace(port=self.observe.port)}"]
            listed.append({"kind": "observe", "listen": str(where), "bound": bound, "tls": False})
        return listed


def _joined(addresses: list[tuple[str, int]]) -> list[str]:
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]


async def _bind(binding: Coroutine[Any, Any, None], key: str, address: Listen) -> None:
    try:
        await binding
    except OSError as error:
        # asyncio repeats the address in `strerror`, and a failed look-up of a name has no errno of the system's.
        reason = os.strerror(error.errno) if isinstance(error.errno, int) and error.errno > 0 else str(error)
        raise CommandError(
            ExitCode.FAILED,
            f"cannot listen on {address} ({key}): {reason}",
            "Stop what listens there already, or choose another address; ports below 1024 need CAP_NET_BIND_SERVICE.",
            "cannot-listen",
        ) from error
