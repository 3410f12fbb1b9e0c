"""What the operator may ask of the identity state: one function a command, JSON-able in and out.

The daemon serves them at its control socket; while none runs, the command line calls them itself, under the state's
lock. So a command does the same either way.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cloud_relay.config import RelayConfig
from cloud_relay.identity import describe
from cloud_relay.identity.events import Kind, Scope, new_event
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.office import Office
from cloud_relay.identity.records import CertificateRecord, ConnectorKey, Stage, TokenState
from cloud_relay.identity.revocation import block, revoke, unblock
from cloud_relay.identity.rollover import WrongStage
from cloud_relay.identity.store import StateError
from cloud_relay.identity.tokens import DEFAULT_LIFETIME, MAX_LIFETIME, create_token, describe_token, revoke_token
from cloud_relay.identity.upkeep import Upkeep
from shared.clock import rfc3339
from shared.control import ControlFault, ControlRequest, Routes
from shared.names import NAME_RULE, is_name, suggestion
from shared.pki.files import PkiError

MAX_EVENTS: Final = 10_000
HINT_WITHIN: Final = 10.0
"""Seconds within which a connector that is asked to renew does so."""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{8,64}")
_OWN_CA: Final = "this relay works with certificates of a CA of your own (tunnel.tls), so it signs nothing"


@dataclass(slots=True)
class Desk:
    """What the commands work on. `attached` gives (fingerprint, age in seconds) of the tunnels of a connector, `hint`
    asks those of a connector to renew and says how many were asked; neither is there without a daemon."""

    office: Office
    config: Callable[[], RelayConfig]
    upkeep: Upkeep
    attached: Callable[[ConnectorKey], list[tuple[str, float]]] = lambda _key: []
    hint: Callable[[ConnectorKey, float], int] | None = None

    @property
    def now(self) -> datetime:
        """The time."""
        return self.office.registrar.clock.now()


Command = Callable[[Desk, Mapping[str, Any]], Awaitable[dict[str, Any]]]


# ---------------------------------------------------------------- tokens


async def tokens_create(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    _require_built_in_ca(desk)
    key = parse_connector(asked.get("connector"))
    _require_location(desk, key)
    relays = desk.config().tunnel.advertise
    if not relays:
        raise ControlFault(409, "no-address", "the config does not say how connectors reach this relay",
                           "Name it in tunnel.advertise: [relay.example.com:443].")  # fmt: skip
    lifetime = timedelta(seconds=float(asked.get("lifetime") or DEFAULT_LIFETIME.total_seconds()))
    if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
        raise ControlFault(400, "bad-lifetime", f"a join token lives for a second to {MAX_LIFETIME.days} days")
    targets = asked.get("targets")
    for target in targets or ():
        _check_name(target, "target")
    token, record = await create_token(
        desk.office.registrar, key, relays, lifetime=lifetime, targets=targets, by=_by(asked)
    )
    return {"join_token": str(token)} | describe_token(record, desk.now)


async def tokens_list(desk: Desk, _asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"tokens": [describe_token(one, desk.now) for one in desk.office.book.tokens.values()]}


async def tokens_revoke(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    token = str(asked.get("token"))
    if token not in desk.office.book.tokens:
        raise ControlFault(404, "no-such-token", f"there is no join token {token[:40]!r}", "See 'tokens list'.")
    record = await revoke_token(desk.office.registrar, token, _by(asked))
    if record.state(desk.now) is TokenState.USED:
        connector = "/".join(record.connector)
        raise ControlFault(409, "token-used", f"the join token {token} was used already, by {connector}",
                           f"To end what it was used for: cloud-relay certs revoke {connector}")  # fmt: skip
    return describe_token(record, desk.now)


# ---------------------------------------------------------------- certificates


async def certs_list(desk: Desk, _asked: Mapping[str, Any]) -> dict[str, Any]:
    own = [describe.expiry(one) for one in desk.upkeep.expiries()]
    issued = [describe.certificate(one, desk.office.book, desk.now) for one in desk.office.book.certificates.values()]
    return {"own": own, "certificates": issued}


async def certs_show(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    record = _find_certificate(desk, asked.get("fingerprint"))
    return describe.certificate(record, desk.office.book, desk.now)


async def certs_revoke(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    scope = _parse_kind_of_scope(asked.get("scope"))
    name, reason = str(asked.get("name")), str(asked.get("reason") or "")[:200]
    fingerprint, key = "", ("", "", "")
    if scope is Scope.CERTIFICATE:
        fingerprint = _fingerprint_to_revoke(desk, name)
    else:
        key = _parse_scope(scope, name)
    ended = await revoke(
        desk.office.registrar, scope, fingerprint=fingerprint, key=key, reason=reason, by=_by(asked)
    )  # fmt: skip
    return {"scope": scope.value, "name": name, "certificates": [one.fingerprint for one in ended]}


async def certs_rotate(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    _require_built_in_ca(desk)
    if asked.get("connector") is None:
        before = desk.upkeep.own.chain()
        leaf = await desk.upkeep.renew_own()
        was = rfc3339(before[0].not_valid_after_utc) if before else None
        return {"relay": desk.office.book.relay, "before": was, "not_after": rfc3339(leaf.not_valid_after_utc)}
    key = _known(desk, asked["connector"])
    asked_for = 0 if desk.hint is None else desk.hint(key, float(asked.get("within") or HINT_WITHIN))
    if not asked_for:
        raise ControlFault(409, "not-attached", f"{'/'.join(key)} has no tunnel to this relay now",
                           "It renews by itself when it is back.")  # fmt: skip
    return {"connector": "/".join(key), "hinted": asked_for, "within_s": asked.get("within") or HINT_WITHIN}


# ---------------------------------------------------------------- connectors


async def connectors_list(desk: Desk, _asked: Mapping[str, Any]) -> dict[str, Any]:
    found = sorted(desk.office.book.connectors)
    return {"connectors": [describe.connector(desk, key) for key in found]}


async def connectors_show(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    key = _known(desk, asked.get("connector"))
    record = desk.office.book.connectors[key]
    certificates = [describe.certificate(one, desk.office.book, desk.now) for one in record.certificates]
    return describe.connector(desk, key) | {"certificates": certificates}


async def connectors_block(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    key = parse_connector(asked.get("connector"))
    is_known = key in desk.office.book.connectors
    changed = await block(desk.office.registrar, key, str(asked.get("reason") or "")[:200], _by(asked))
    return {"connector": "/".join(key), "blocked": True, "changed": changed, "known": is_known}


async def connectors_unblock(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    key = _known(desk, asked.get("connector"))
    changed = await unblock(desk.office.registrar, key, _by(asked))
    return {"connector": "/".join(key), "blocked": False, "changed": changed}


# ---------------------------------------------------------------- the CA


async def ca_status(desk: Desk, _asked: Mapping[str, Any]) -> dict[str, Any]:
    _require_built_in_ca(desk)
    return describe.authority(desk)


async def ca_rotate(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a roll-over, or skip who is not to be waited for, and take what steps can be taken."""
    _require_built_in_ca(desk)
    roll_over, by = desk.office.roll_over, _by(asked)
    skipped = [_known(desk, name) for name in asked.get("skip") or ()]
    if asked.get("compromised"):
        if skipped:
            raise ControlFault(400, "bad-request", "with --compromised nobody is waited for: leave --skip out")
        ended = await roll_over.compromised(by)
        desk.upkeep.request()
        return describe.authority(desk) | {"tokens_ended": [describe_token(one, desk.now) for one in ended]}
    if not skipped or desk.office.book.stage is Stage.STEADY:
        await roll_over.begin(by)
    for key in skipped:
        await roll_over.skip(key, by)
    desk.upkeep.request()
    return describe.authority(desk) | {"tokens_ended": []}


async def ca_rollback(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    _require_built_in_ca(desk)
    ended = await desk.office.roll_over.roll_back(_by(asked))
    desk.upkeep.request()
    return describe.authority(desk) | {"tokens_ended": [describe_token(one, desk.now) for one in ended]}


async def ca_accept_clock(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The operator says that this host's clock is right: it was wrong when the last event was written."""
    registrar, now = desk.office.registrar, desk.now
    before = desk.office.book.last_at
    await registrar.change(lambda: ([new_event(Kind.CLOCK_ACCEPTED, now, by=_by(asked))], {}), is_urgent=True)
    return {"last_event": rfc3339(before), "now": rfc3339(now)}


async def events(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    after = max(0, int(asked.get("after") or 0))
    found = await desk.office.events(after, MAX_EVENTS)
    return {"events": [describe.event(one) for one in found], "last": desk.office.book.number}


COMMANDS: Final[dict[str, Command]] = {
    "tokens-create": tokens_create,
    "tokens-list": tokens_list,
    "tokens-revoke": tokens_revoke,
    "certs-list": certs_list,
    "certs-show": certs_show,
    "certs-revoke": certs_revoke,
    "certs-rotate": certs_rotate,
    "connectors-list": connectors_list,
    "connectors-show": connectors_show,
    "connectors-block": connectors_block,
    "connectors-unblock": connectors_unblock,
    "ca-status": ca_status,
    "ca-rotate": ca_rotate,
    "ca-rollback": ca_rollback,
    "ca-accept-clock": ca_accept_clock,
    "events": events,
}
"""By the name under which the control socket serves them: POST /v1/identity/NAME."""


def desk_routes(desk: Callable[[], Desk | None]) -> Routes:
    """The commands as the control socket serves them; before the state is open they are refused."""

    def served(name: str) -> Callable[[ControlRequest], Awaitable[dict[str, Any]]]:
        async def handle(request: ControlRequest) -> dict[str, Any]:
            found = desk()
            if found is None:
                raise ControlFault(503, "starting", "the relay is starting; ask again in a moment")
            return await perform(found, name, request.body if isinstance(request.body, dict) else {})

        return handle

    return {("POST", f"/v1/identity/{name}"): served(name) for name in COMMANDS}


async def perform(desk: Desk, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """One command; every refusal is a ControlFault."""
    try:
        return await COMMANDS[name](desk, asked)
    except IdentityFault as fault:
        entry = fault.fault
        status = 409 if entry.status == 503 else 403
        cause = f": {fault.__cause__}" if isinstance(fault.__cause__, PkiError) else ""  # for the operator alone
        raise ControlFault(status, entry.code, (fault.detail or entry.title) + cause, entry.remedy) from fault
    except WrongStage as error:
        raise ControlFault(409, "wrong-stage", str(error), "See 'cloud-relay ca status'.") from error
    except (PkiError, StateError, OSError) as error:
        raise ControlFault(500, "state-unusable", str(error)) from error


# ---------------------------------------------------------------- reading what was asked


def parse_connector(value: object) -> ConnectorKey:
    """TENANT/LOCATION/NAME. ControlFault otherwise."""
    parts = str(value).split("/")
    if len(parts) != 3 or not all(is_name(part) for part in parts):
        raise ControlFault(400, "bad-name", f"{str(value)[:200]!r} names no connector",
                           f"Write TENANT/LOCATION/NAME, each of {NAME_RULE}.")  # fmt: skip
    return parts[0], parts[1], parts[2]


def _parse_scope(scope: Scope, name: str) -> ConnectorKey:
    wanted = {Scope.TENANT: 1, Scope.LOCATION: 2, Scope.CONNECTOR: 3}[scope]
    parts = name.split("/")
    if len(parts) != wanted or not all(is_name(part) for part in parts):
        form = "/".join(("TENANT", "LOCATION", "NAME")[:wanted])
        raise ControlFault(400, "bad-name", f"{name[:200]!r} names no {scope.value}", f"Write {form}.")
    filled = [*parts, "", ""]
    return filled[0], filled[1], filled[2]


def _parse_kind_of_scope(value: object) -> Scope:
    try:
        return Scope(str(value))
    except ValueError:
        raise ControlFault(400, "bad-scope", f"{str(value)[:40]!r} is not one of {', '.join(Scope)}") from None


def _require_location(desk: Desk, key: ConnectorKey) -> None:
    """ControlFault unless the config in force has tenant and location; it says which of the two is not there."""
    tenant, location, _ = key
    if desk.office.registrar.knows(tenant, location):
        return
    tenants = desk.config().tenants
    if tenant in tenants:
        message = f"tenant {tenant!r} has no location {location!r}"
        near = suggestion(location, tenants[tenant].locations)
    else:
        message, near = f"the config has no tenant {tenant!r}", suggestion(tenant, tenants)
    remedy = f"{near} Else add it to the relay's config." if near else "Add it to the relay's config."
    raise ControlFault(404, "unknown-location", message, remedy)


def _known(desk: Desk, value: object) -> ConnectorKey:
    key = parse_connector(value)
    if key not in desk.office.book.connectors:
        near = suggestion("/".join(key), ("/".join(one) for one in desk.office.book.connectors))
        raise ControlFault(404, "no-such-connector", f"there is no connector {'/'.join(key)}",
                           near or "See 'cloud-relay connectors list'.")  # fmt: skip
    return key


def _find_certificate(desk: Desk, value: object) -> CertificateRecord:
    text = str(value).lower().replace(":", "")
    if _FINGERPRINT.fullmatch(text) is None:
        raise ControlFault(400, "bad-fingerprint", "a certificate is named by its SHA-256, at least 8 digits of it")
    found = [one for one in desk.office.book.certificates.values() if one.fingerprint.startswith(text)]
    if len(found) != 1:
        what = "no certificate has" if not found else f"{len(found)} certificates have"
        raise ControlFault(404, "no-such-certificate", f"{what} a SHA-256 that begins with {text}",
                           "See 'cloud-relay certs list'.")  # fmt: skip
    return found[0]


def _fingerprint_to_revoke(desk: Desk, name: str) -> str:
    """A known certificate by its first digits; any at all by all of them, so that what a restore forgot, or another CA
    has made, can be revoked before it comes."""
    text = name.lower().replace(":", "")
    if len(text) == 64 and _FINGERPRINT.fullmatch(text):
        return text
    if desk.config().tunnel.tls is not None:
        raise ControlFault(400, "bad-fingerprint", "with a CA of your own, name all 64 digits of the SHA-256",
                           "openssl x509 -noout -fingerprint -sha256 -in FILE")  # fmt: skip
    return _find_certificate(desk, name).fingerprint


def _by(asked: Mapping[str, Any]) -> str:
    return str(asked.get("by") or "")[:64]


def _check_name(value: object, what: str) -> None:
    if not isinstance(value, str) or not is_name(value):
        raise ControlFault(400, "bad-name", f"{str(value)[:80]!r} is no name of a {what}")


def _require_built_in_ca(desk: Desk) -> None:
    if desk.config().tunnel.tls is not None:
        raise ControlFault(409, "own-ca", _OWN_CA, "Make certificates with your own CA; the relay reloads its files.")
