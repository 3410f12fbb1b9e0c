"""Each tenant's routes, as the running relay sees them, and whether its senders' credentials can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.config.credentials import IssuerConfig
from cloud_relay.oauth.fetch import fetch_document
from cloud_relay.oauth.keyset import KeySet
from cloud_relay.prechecks.reach import reason
from cloud_relay.sender_control import kinds_of
from shared.errors import FAULTS
from shared.pki.files import PkiError, read_public
from shared.pki.tls import load_certificates
from shared.prechecks import Checklist, Figure, Precheck, Stopwatch, days_left
from shared.units import format_duration

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig, SenderConfig, TenantConfig

SOON: Final = 30.0
"""Days before its end from which on a CA is spoken of."""


async def check_tenants(
    config: RelayConfig, status: Mapping[str, Any] | None, disabled: Mapping[tuple[str, str], str]
) -> list[Precheck]:
    """Routes, then senders, tenant by tenant. `disabled`: senders that are switched off, and since when."""
    found = await asyncio.gather(
        *(_check_tenant(name, tenant, status, disabled) for name, tenant in config.tenants.items())
    )
    return [row for rows in found for row in rows]


async def _check_tenant(
    name: str, tenant: TenantConfig, status: Mapping[str, Any] | None, disabled: Mapping[tuple[str, str], str]
) -> list[Precheck]:
    routes = Checklist(f"tenant {name}, routes")
    if status is None:
        names = [one.name for one in tenant.routes] + [one.name for one in tenant.tcp_routes]
        routes.skipped("the relay does not run", *names)
    else:
        for one in (*status["routes"], *status["tcp_routes"]):
            if one["tenant"] == name:
                _say_route(routes, one)
    senders = Checklist(f"tenant {name}, senders")
    for issuer in tenant.issuers:
        await _check_issuer(senders, issuer)
    if tenant.sender_ca is not None:
        _check_ca(senders, "sender_ca", tenant.sender_ca)
    told = {one["sender"]: one for one in (status["senders"] if status else ()) if one["tenant"] == name}
    for sender in tenant.senders:
        _say_sender(senders, sender, disabled.get((name, sender.name)), told.get(sender.name, {}), name)
    return routes.rows + senders.rows


def _say_route(checks: Checklist, route: Mapping[str, Any]) -> None:
    """By what probes have found out through the tunnels, where the relay knows that; else by who is attached."""
    to = f"{route['location']}/{route['target']}"
    figure = Figure(route["tunnels"], "tunnel" if route["tunnels"] == 1 else "tunnels")
    why, age = route.get("why") or "", route.get("age_s")
    when = "" if age is None else f", as seen {age:.0f} s ago"
    if not route["tunnels"]:
        checks.failed(route["route"], f"no connector that is attached exposes {to}",
                      "Look there: 'connector-agent check'; 'cloud-relay connectors list' shows who is attached, "
                      "'status' what each exposes.", figure, code="no-connector")  # fmt: skip
    elif route["state"] == "red":
        fault = FAULTS.get(why)
        checks.failed(route["route"], f"{to} is not well{when}: {fault.title if fault else why or 'no reason is told'}",
                      "Look there: 'connector-agent check' tries the target, and its log names the cause.", figure,
                      code=why)  # fmt: skip
    else:
        unknown = f"; how it is, is not known{f' ({why})' if why else ''}" if route["state"] == "unknown" else when
        checks.ok(route["route"], f"to {to}{unknown}", figure)


def _say_sender(checks: Checklist, sender: SenderConfig, since: str | None, told: Mapping[str, Any], name: str) -> None:
    """`since`: when it was switched off; `told`: what the running relay has seen of it."""
    silent, expected = told.get("silent_s"), told.get("expect_every_s")
    if since is not None:
        checks.warning(sender.name, f"switched off since {since}",
                       f"If it is to push again: 'cloud-relay senders enable {name}/{sender.name}'.",
                       code="sender-disabled")  # fmt: skip
    elif silent is not None and expected and silent > expected:
        checks.warning(sender.name, f"nothing was delivered for {format_duration(silent)}",
                       f"It should push every {format_duration(expected)}: look at the sender, and at its URL.",
                       Figure(silent, "s"), code="sender-silent")  # fmt: skip
    else:
        checks.ok(sender.name, f"known by {', '.join(kinds_of(sender))}")


async def _check_issuer(checks: Checklist, issuer: IssuerConfig) -> None:
    check = f"issuer {issuer.name}"
    if issuer.jwks_ca is not None:
        _check_ca(checks, f"{check}, CA", issuer.jwks_ca)
    try:
        with Stopwatch() as watch:
            if issuer.jwks_url is not None:
                keys = KeySet(await fetch_document(issuer.jwks_url, issuer.jwks_ca))
            elif issuer.jwks_file is not None:
                keys = KeySet(read_public(issuer.jwks_file, "key set"))
            else:
                return  # the config's checks let none of these pass
    except (OSError, ValueError) as error:
        where = str(issuer.jwks_url or issuer.jwks_file).partition("?")[0]  # a query may hold a key
        checks.failed(check, f"its keys cannot be had from {where}: {reason(error)}",
                      "Check the URL, this host's way to it (DNS, firewall, https_proxy), and jwks_ca. Until then its "
                      "senders get 503.", code="cannot-judge-credential")  # fmt: skip
    else:
        figure = watch.figure if issuer.jwks_url is not None else None
        checks.ok(check, f"{len(keys)} {'key' if len(keys) == 1 else 'keys'}", figure)


def _check_ca(checks: Checklist, check: str, path: Path) -> None:
    """By the certificate of the bundle that lasts longest: the others may be there for a change."""
    now = datetime.now(UTC)
    try:
        end = max(one.not_valid_after_utc for one in load_certificates(path))
    except PkiError as error:
        checks.failed(check, str(error), "Mend that file.", code="certificate-unusable")
        return
    figure = days_left(end, now)
    if figure.value <= 0:
        checks.failed(check, f"{path} expired at {end:%FT%TZ}", "Put the CA's new certificate there.", figure)
    elif figure.value < SOON:
        checks.warning(check, f"{path} ends at {end:%FT%TZ}", "Add the CA's new certificate to it in time.", figure)
    else:
        checks.ok(check, path.name, figure)
