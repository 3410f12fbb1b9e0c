"""What this connector shows to relays and whom it trusts, looked at without dialling."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from connector_agent.certificates import InUse
from connector_agent.credentials import Credentials
from connector_agent.dialer import Contexts, ProxyChoice
from connector_agent.identity.manager import ManagedIdentity
from connector_agent.identity.store import IdentityStore
from connector_agent.wiring import check_identity, read_token
from shared.clock import TrustedClock
from shared.config import HostPort
from shared.exits import CommandError, ExitCode
from shared.pki.files import PkiError
from shared.prechecks import Checklist, days_left

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig
    from shared.pki.join_token import JoinToken
    from shared.tunnel.websocket_client import CheckPeer

SUBJECT: Final = "this connector"


class Known(NamedTuple):
    """What dialling can be tried with. Without `contexts` there is no identity yet, perhaps a `token` for one."""

    relays: tuple[HostPort, ...] = ()
    contexts: Callable[[], Contexts] | None = None
    check_peer: CheckPeer = lambda _certificate: None
    token: JoinToken | None = None
    store: IdentityStore | None = None


class Way(NamedTuple):
    """How relays are reached, and as whom. `names_proxy`: the config does, rather than the environment."""

    known: Known
    proxies: ProxyChoice
    names_proxy: bool = False


def look_at_identity(config: ConnectorConfig, checks: Checklist) -> Known:
    """Certificate, key, roots, relays. What is missing or broken is said in `checks`, and is not in what is known."""
    relays = tuple(config.relay_addresses())
    try:
        if config.tls is not None:
            own = Credentials(config.tls.certificate, config.tls.key, config.tls.ca)
            _say_ends(own.certificates(), checks, own.now())
            return Known(relays, own.contexts)
        if check_identity(config) is None:
            return _not_joined(config, checks, relays)
        store = IdentityStore(config.state_dir)
        managed = ManagedIdentity(store, TrustedClock())
        _say_ends(managed.certificates(), checks, datetime.now(UTC))
        return Known(relays or tuple(store.load_relays()), managed.contexts, managed.check_relay, store=store)
    except PkiError as error:
        checks.failed("identity", str(error), "Mend that file.", exit_code=ExitCode.CONFIG)
    except CommandError as error:
        checks.failed("identity", error.message, error.remedy, code=error.code, exit_code=error.exit_code)
    return Known(relays)


def say_end(one: InUse, checks: Checklist, now: datetime) -> None:
    """One certificate's end: passed, near, or far."""
    figure = days_left(one.not_after, now)
    check = _CHECKS[one.kind]
    if now < one.not_before:
        checks.failed(check, f"{one.name} is not valid before {one.not_before:%FT%TZ}",
                      "Set this host's clock right; else ask whoever issued it.", figure)  # fmt: skip
    elif now >= one.not_after and not one.is_renewed:
        exit_code = ExitCode.CREDENTIAL if one.kind == "identity" else ExitCode.FAILED
        checks.failed(check, f"{one.name} expired at {one.not_after:%FT%TZ}", "Put a new one in its place.", figure,
                      code="certificate-expired", exit_code=exit_code)  # fmt: skip
    elif (warning := one.warning(now)) is not None:
        detail, _, remedy = warning.partition(": ")
        checks.warning(check, detail, f"{remedy[:1].upper()}{remedy[1:]}.", figure)
    else:
        checks.ok(check, f"{one.name}, valid until {one.not_after:%FT%TZ}", figure)


_CHECKS: Final = {
    "identity": "certificate", "root": "root", "ca": "CA", "target-certificate": "certificate", "target-ca": "CA"
}  # fmt: skip


def _say_ends(certificates: list[InUse], checks: Checklist, now: datetime) -> None:
    for one in certificates:
        name = f"pin {one.name[:16]}…" if one.kind == "root" else one.name
        say_end(one._replace(name=name), checks, now)


def _not_joined(config: ConnectorConfig, checks: Checklist, relays: tuple[HostPort, ...]) -> Known:
    """There is no identity, and `join` names a token, which may come later."""
    file = config.join.token_file if config.join is not None else None
    if file is None:
        return Known(relays)
    try:
        token = read_token(file)
    except PkiError as error:
        checks.failed("identity", f"not joined yet, and the token cannot be read: {error}",
                      "Put a token of 'cloud-relay tokens create' there.", exit_code=ExitCode.CONFIG)  # fmt: skip
        return Known(relays)
    checks.skipped(f"not joined yet: the first run joins as {token.identity}", "identity")
    return Known(relays or token.relays, token=token, store=IdentityStore(config.state_dir))
