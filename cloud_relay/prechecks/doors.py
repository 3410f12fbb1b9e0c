"""The relay's listeners, from this very host: bound, and answering with the certificate that is on disk."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from cloud_relay.prechecks.reach import CONNECT, REFUSED, reason, shake_hands
from shared.config import Listen
from shared.config.model import parse_host_port
from shared.listeners import listen_remedy
from shared.pki.files import PkiError
from shared.pki.issue import fingerprint
from shared.pki.tls import load_certificates
from shared.prechecks import Checklist, Precheck, Stopwatch, days_left

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig

_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where all interfaces are listened on


async def check_doors(config: RelayConfig, status: Mapping[str, Any] | None) -> list[Precheck]:
    """Without a relay that runs: whether its ports could be had."""
    if status is None:
        return [row for listen, kind in _planned(config).items() for row in _check_free(listen, kind)]
    found = await asyncio.gather(*(_check_door(config, door) for door in status["listeners"]))
    return [row for rows in found for row in rows]


async def _check_door(config: RelayConfig, door: Mapping[str, Any]) -> list[Precheck]:
    checks = Checklist(f"listener {door['listen']} ({door['kind'].replace('+', ' and ')})")
    if not door["bound"]:
        checks.failed("bound", "nothing is bound", "Look at the relay's log, and restart it.", code="cannot-listen")
        checks.skipped("after bound", "TCP")
        return checks.rows
    checks.ok("bound", ", ".join(door["bound"]))
    host, port = parse_host_port(door["bound"][0])
    host = _HERE.get(host, host)
    try:
        with Stopwatch() as watch:
            async with asyncio.timeout(CONNECT):
                _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
    except REFUSED as error:
        checks.failed("TCP", f"no answer at {host}:{port}: {reason(error)}",
                      "Look at the relay's log, and whether it has run out of descriptors.")  # fmt: skip
        return checks.rows
    checks.ok("TCP", f"{host}:{port} answers", watch.figure)
    ingress = next((one for one in config.ingress if str(one.listen) == door["listen"]), None)
    if ingress is None or ingress.tls is None or "ingress" not in door["kind"]:
        return checks.rows
    if ingress.proxy_from:
        checks.skipped("only load balancers may connect (proxy_from)", "TLS")
        return checks.rows
    name = next((route.match.host for one in config.tenants.values() for route in one.routes), "localhost")
    await _check_tls(checks, host, port, name, [pair.certificate for pair in ingress.tls])
    return checks.rows


async def _check_tls(checks: Checklist, host: str, port: int, name: str, files: list[Any]) -> None:
    try:
        shown = await shake_hands(host, port, name)
    except REFUSED as error:
        checks.failed("TLS", f"no handshake: {reason(error)}", "Look at the relay's log.", code="tls-failed")
        return
    now = datetime.now(UTC)
    figure = days_left(shown.certificate.not_valid_after_utc, now)
    if not _is_on_disk(shown.certificate, files):
        checks.warning("TLS", "the certificate in use is another one than on disk",
                       "'cloud-relay reload' says why the one on disk is not taken.", figure)  # fmt: skip
    elif now >= shown.certificate.not_valid_after_utc:
        checks.failed("TLS", "the certificate in use has expired", "Renew it: the relay takes it by itself.", figure)
    else:
        checks.ok("TLS", f"{shown.version}, for {name}", figure)


def _is_on_disk(certificate: x509.Certificate, files: list[Any]) -> bool:
    try:
        return any(fingerprint(load_certificates(path)[0]) == fingerprint(certificate) for path in files)
    except PkiError:
        return False


def _check_free(listen: Listen, kind: str) -> Iterator[Precheck]:
    checks = Checklist(f"listener {listen} ({kind})")
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            checks.failed("bound", f"the relay does not run, and this cannot be listened on: {error.strerror or error}",
                          listen_remedy(error), code="cannot-listen")  # fmt: skip
        else:
            checks.skipped("the relay does not run; the port is free", "bound", "TCP")
    yield from checks.rows


def _planned(config: RelayConfig) -> dict[Listen, str]:
    """Every port of the config, and what for."""
    planned = {config.tunnel.listen: "tunnel"}
    listed = [(one.listen, "ingress") for one in config.ingress]
    listed += [(one.listen, "tcp") for tenant in config.tenants.values() for one in tenant.tcp_routes]
    if config.observe is not None:
        listed.append((config.observe.listen, "observe"))
    for listen, kind in listed:
        planned[listen] = f"{planned[listen]} and {kind}" if kind not in planned.get(listen, kind) else kind
    return {listen: kind for listen, kind in planned.items() if listen.port}
