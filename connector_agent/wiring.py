"""The tunnels that a config wants, and the identity that they are dialled with: the operator's own CA's, or managed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from connector_agent.credentials import Credentials
from connector_agent.dialer import Contexts, Dialer, ProxyChoice
from connector_agent.identity.join import Joined, Joiner
from connector_agent.identity.manager import ManagedIdentity
from connector_agent.identity.store import Identity, IdentityStore
from connector_agent.proxy import Proxy, ProxyError, basic_authorization
from connector_agent.tunnels import Tunnels
from shared.clock import TrustedClock
from shared.exits import CommandError, ExitCode
from shared.pki.files import PkiError, read_private
from shared.pki.join_token import JoinToken, parse_join_token

if TYPE_CHECKING:
    from pathlib import Path

    from connector_agent.app import ConnectorApp
    from connector_agent.config import ConnectorConfig


def make_tunnels(app: ConnectorApp, environ: Mapping[str, str] = os.environ) -> Tunnels:
    """PkiError or CommandError where a file or the proxy cannot be used."""
    config = app.config
    relays = [(relay.host, relay.port) for relay in config.relays]
    try:
        proxies = choose_proxies(config, environ)
    except ProxyError as error:
        remedy = "Mend the config's proxy, or https_proxy in the environment."
        raise CommandError(ExitCode.CONFIG, str(error), remedy, error.code) from error
    make = partial(
        Tunnels, relays, on_stream=app.dispatcher.on_stream, targets=app.announcement, count=config.tunnels,
        metrics=app.metrics.tunnels, standby=config.standby, budget=app.budget, gaps=app.gaps,
    )  # fmt: skip
    if config.tls is not None:
        own = Credentials(config.tls.certificate, config.tls.key, config.tls.ca)
        tunnels = make(dialer=Dialer(own.contexts, proxies), version=lambda: own.version, identity=own)
        own.bind(tunnels)
        return tunnels
    managed = make_identity(config, proxies)
    dialer = Dialer(managed.contexts, proxies, managed.check_relay)
    tunnels = make(dialer=dialer, keeper=managed, identity=managed)
    managed.bind(tunnels)
    return tunnels


def make_identity(config: ConnectorConfig, proxies: ProxyChoice) -> ManagedIdentity:
    """The identity in state_dir, or the way to one."""
    clock = TrustedClock()
    store = IdentityStore(config.state_dir)
    joining = config.join
    join = None
    if joining is not None:

        async def join() -> Joined:
            token = read_token(joining.token_file)
            return await make_joiner(store, clock, proxies).join(token, config.relay_addresses() or token.relays)

    return ManagedIdentity(store, clock, join=join)


def make_joiner(store: IdentityStore, clock: TrustedClock, proxies: ProxyChoice) -> Joiner:
    """Redeems tokens through the same proxy as the tunnels."""
    return Joiner(Dialer(_no_contexts, proxies), store, clock)


def read_token(path: Path) -> JoinToken:
    """The join token in a file that nobody else may read. PkiError names the file and the remedy."""
    try:
        return parse_join_token(read_private(path, "join token").decode("ascii", "replace"))
    except PkiError:
        raise
    except ValueError as error:
        msg = f"{path}: {error}"
        raise PkiError(msg) from error


def check_identity(config: ConnectorConfig) -> Identity | None:
    """Look whether the config's identity can be used, without starting anything. PkiError or CommandError.

    None where there is none yet, and `join` will bring it. An identity that is there wins over a token for it; one for
    somebody else is an error: two names in one place are somebody's mistake.
    """
    if config.tls is not None:
        Credentials(config.tls.certificate, config.tls.key, config.tls.ca)
        return None
    store = IdentityStore(config.state_dir)
    identity = store.load_identity()
    if identity is None:
        if config.join is None:
            raise CommandError(
                ExitCode.CONFIG, f"this connector has no identity yet: there is none in {config.state_dir}",
                "Run 'connector-agent enroll' with a join token, or name one in join.token_file; "
                "with a CA of your own, name its files in tls.", "not-joined",
            )  # fmt: skip
        return None
    store.load_roots()
    if not config.relays and not store.load_relays():
        raise CommandError(
            ExitCode.CONFIG, "no relay to dial: relays is missing, and the state does not name any",
            "Name them: relays: [wss://relay.example.com:443]",
        )  # fmt: skip
    _compare(config, identity)
    return identity


def _compare(config: ConnectorConfig, identity: Identity) -> None:
    if config.join is None:
        return
    try:
        token = read_token(config.join.token_file)
    except PkiError:
        return  # a stale file is nobody's business once there is an identity
    if token.identity != identity.id:
        raise CommandError(
            ExitCode.CONFIG, f"the token in {config.join.token_file} is for {token.identity}, "
            f"but {config.state_dir} holds the identity {identity.id}",
            "Give each connector a state_dir of its own, or remove the token; to become another connector, move the "
            "old identity away.", "token-for-another",
        )  # fmt: skip


def choose_proxies(config: ConnectorConfig, environ: Mapping[str, str]) -> ProxyChoice:
    """The config's proxy, else the environment's. Raises ProxyError or PkiError."""
    if config.proxy is None:
        return ProxyChoice.from_environment(environ)
    url, auth_file = config.proxy.url, config.proxy.auth_file
    authorization = basic_authorization(read_private(auth_file, "proxy credentials")) if auth_file else None
    proxy = Proxy(url.scheme, url.host, url.port, authorization)
    return ProxyChoice(proxy, config.proxy.no_proxy, skips_loopback=False)


def _no_contexts() -> Contexts:
    raise RuntimeError("a join makes its own TLS contexts")
