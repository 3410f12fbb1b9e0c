"""Certificates and CAs: how long they last, and whether those that senders see are for the hosts that they push to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloud_relay.config.checks_tcp import covers
from cloud_relay.expiries import Expiry, file_expiries, near
from shared.pki.files import PkiError
from shared.pki.tls import dns_names, load_certificates
from shared.prechecks import Checklist, Precheck, days_left

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloud_relay.config import RelayConfig


def check_certificates(config: RelayConfig, told: Iterable[Mapping[str, Any]]) -> list[Precheck]:
    """All that the config names, and with the relay's own CA that. `told`: as the relay's status lists them."""
    checks = Checklist("certificates")
    now = datetime.now(UTC)
    try:
        named = [one._replace(warning=near(one, now)) for one in file_expiries(config)]
    except PkiError as error:
        checks.failed("files", str(error), "Mend that file.", code="certificate-unusable")
        named = []
    own = [one for one in _read(told) if one.kind not in {each.kind for each in named}]
    for one in [*own, *named]:
        _say_end(checks, one, now)
    return checks.rows + _check_hosts(config)


def _say_end(checks: Checklist, one: Expiry, now: datetime) -> None:
    figure = days_left(one.not_after, now)
    if now >= one.not_after:
        remedy = one.warning or "Renew it: the relay takes the new file by itself."
        checks.failed(one.kind, f"{one.name} expired at {one.not_after:%FT%TZ}", _sentence(remedy), figure,
                      code="certificate-expired")  # fmt: skip
    elif one.warning:
        checks.warning(one.kind, f"{one.name} ends at {one.not_after:%FT%TZ}", _sentence(one.warning), figure)
    else:
        checks.ok(one.kind, one.name, figure)


def _read(told: Iterable[Mapping[str, Any]]) -> list[Expiry]:
    return [
        Expiry(one["kind"], one["name"], datetime.fromisoformat(one["not_after"]), one["warning"] or "") for one in told
    ]


def _check_hosts(config: RelayConfig) -> list[Precheck]:
    """Each host of a route, and each server name of a TCP route whose TLS ends here."""
    checks = Checklist("hosts that senders push to")
    try:
        served = [_names(pair) for ingress in config.ingress for pair in ingress.tls or ()]
    except PkiError:
        return []  # said above
    hosts: dict[str, str] = {}
    for tenant, known in config.tenants.items():
        for route in known.routes:
            hosts.setdefault(route.match.host, f"{tenant}/{route.name}")
    for host, owner in hosts.items():
        if not served:
            checks.skipped("no ingress has a certificate: TLS ends elsewhere, or nowhere", host)
        else:
            _say_host(checks, host, owner, [name for names in served for name in names])
    for tenant, known in config.tenants.items():
        for one in known.tcp_routes:
            for name in one.sni if one.tls is not None else ():
                _say_host(checks, name, f"{tenant}/{one.name}", _names(one.tls))
    return checks.rows


def _say_host(checks: Checklist, host: str, owner: str, names: list[str]) -> None:
    fitting = [name for name in names if name == host or covers(name, host)]
    if fitting:
        checks.ok(host, f"a certificate is for {fitting[0]}")
    else:
        shown = ", ".join(names[:4]) or "no DNS name"
        checks.failed(host, f"route {owner}: no certificate is for this host, but for {shown}",
                      "Get one with this name among its SANs, and name it in the ingress' tls (or the route's).",
                      code="certificate-wrong-name")  # fmt: skip


def _names(pair: Any) -> list[str]:
    return dns_names(load_certificates(pair.certificate, "certificate")[0])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."
