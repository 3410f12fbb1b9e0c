"""The names that connectors dial: resolved, reached and greeted from here, as far as a host can call itself.

What is shown at the other end must be the relay's very certificate. Whatever ends TLS in between (a load balancer of
layer 7, a content delivery network) keeps connectors from proving who they are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509

from cloud_relay.config.checks_tcp import covers
from cloud_relay.identity.own import OWN_FILE
from shared.addresses import is_address
from shared.pki.files import PkiError
from shared.pki.issue import fingerprint
from shared.pki.tls import dns_names, load_certificates, unverified_client_context
from shared.prechecks import Checklist, Precheck, Stopwatch, days_left

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from shared.config import HostPort

CONNECT: Final = 5.0
"""Seconds for a name, a connection, or a handshake."""

REFUSED: Final = (OSError, ssl.SSLError, ValueError, x509.InvalidVersion, UnicodeError)
"""What may come of dialling and reading certificates; TimeoutError is an OSError."""

_HAIRPIN: Final = (
    "Open the port in the firewall or load balancer in front. Some networks do not let a host reach itself by its "
    "public name: then try it from elsewhere, with 'connector-agent check'."
)


class Shown(NamedTuple):
    """What answered a handshake."""

    version: str
    certificate: x509.Certificate


async def shake_hands(host: str, port: int, name: str) -> Shown:
    """TLS, believing anybody, naming `name`; nothing is sent. OSError, ssl.SSLError or ValueError."""
    async with asyncio.timeout(CONNECT):
        _, writer = await asyncio.open_connection(
            host, port, ssl=unverified_client_context(), server_hostname=name, ssl_handshake_timeout=CONNECT
        )
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = connection.getpeercert(binary_form=True)
        if der is None:
            raise ValueError("no certificate was shown")
        return Shown(connection.version() or "TLS", x509.load_der_x509_certificate(der))
    finally:
        writer.transport.abort()


async def check_names(config: RelayConfig, *, is_running: bool) -> list[Precheck]:
    """Every name of `tunnel.advertise`."""
    advertised = config.tunnel.advertise
    if not advertised:
        checks = Checklist("advertised names")
        checks.skipped("tunnel.advertise names none: it is needed for join tokens, and for this check", "names")
        return checks.rows
    own = _own_certificate(config)
    found = await asyncio.gather(*(_check_name(one, own, is_running=is_running) for one in advertised))
    return [row for rows in found for row in rows]


async def _check_name(address: HostPort, own: x509.Certificate | None, *, is_running: bool) -> list[Precheck]:
    checks = Checklist(f"advertised name {address}")
    if not await _resolve(checks, address):
        checks.skipped("after DNS", "TCP", "TLS", "certificate")
    elif not is_running:
        checks.skipped("the relay does not run", "TCP", "TLS", "certificate")
    elif not await _connect(checks, address):
        checks.skipped("after TCP", "TLS", "certificate")
    else:
        await _greet(checks, address, own)
    return checks.rows


async def _resolve(checks: Checklist, address: HostPort) -> bool:
    if is_address(address.host):
        checks.skipped(f"{address.host} is an address", "DNS")
        return True
    try:
        with Stopwatch() as watch:
            async with asyncio.timeout(CONNECT):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except REFUSED as error:
        checks.failed("DNS", f"{address.host} cannot be resolved: {reason(error)}",
                      "Make a DNS record for it, or correct tunnel.advertise.", code="dns-failure")  # fmt: skip
        return False
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    checks.ok("DNS", f"{address.host} is {', '.join(addresses[:4])}{', …' if addresses[4:] else ''}", watch.figure)
    return True


async def _connect(checks: Checklist, address: HostPort) -> bool:
    try:
        with Stopwatch() as watch:
            async with asyncio.timeout(CONNECT):
                _, writer = await asyncio.open_connection(address.host, address.port)
    except REFUSED as error:
        checks.failed("TCP", f"{address} cannot be reached: {reason(error)}", _HAIRPIN, code="unreachable")
        return False
    writer.transport.abort()
    checks.ok("TCP", "", watch.figure)
    return True


async def _greet(checks: Checklist, address: HostPort, own: x509.Certificate | None) -> None:
    try:
        with Stopwatch() as watch:
            shown = await shake_hands(address.host, address.port, address.host)
    except REFUSED as error:
        checks.failed("TLS", f"no handshake with {address}: {reason(error)}",
                      "Let what stands in front pass TCP through as it is: TLS 1.3 ends at the relay.",
                      code="tls-failed")  # fmt: skip
        checks.skipped("after TLS", "certificate")
        return
    checks.ok("TLS", shown.version, watch.figure)
    _judge(checks, address, shown.certificate, own)


def _judge(checks: Checklist, address: HostPort, shown: x509.Certificate, own: x509.Certificate | None) -> None:
    now, end = datetime.now(UTC), shown.not_valid_after_utc
    figure = days_left(end, now)
    if own is not None and shown.public_key() != own.public_key() and fingerprint(shown) != fingerprint(own):
        checks.failed(
            "certificate", f"what is shown is not the relay's own, but signed by '{shown.issuer.rfc4514_string()}'",
            "Something in front ends TLS, or it is another relay: pass TCP through as it is (layer 4), so that "
            "connectors' certificates reach this relay.", figure, code="intercepted",
        )  # fmt: skip
    elif not _is_for(shown, address.host):
        checks.failed("certificate", f"it is not for {address.host}, but for {', '.join(dns_names(shown)) or 'nobody'}",
                      "Get one with this name among its SANs; with the relay's own CA it is made anew when "
                      "tunnel.advertise changes.", figure, code="relay-wrong-name")  # fmt: skip
    elif now >= end:
        checks.failed("certificate", f"it expired at {end:%FT%TZ}", "Renew it; the relay's log says why it was not.",
                      figure, code="relay-expired")  # fmt: skip
    else:
        checks.ok("certificate", "the relay's own" if own is not None else shown.issuer.rfc4514_string(), figure)


def _own_certificate(config: RelayConfig) -> x509.Certificate | None:
    """What the relay shows, as it is on disk; None where it cannot be read by whoever runs this."""
    path = config.state_dir / OWN_FILE if config.tunnel.tls is None else config.tunnel.tls.certificate
    try:
        return load_certificates(path, "certificate")[0]
    except PkiError:
        return None


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    if not is_address(host):
        return any(name == host.lower() or covers(name, host.lower()) for name in dns_names(certificate))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)


def reason(error: Exception) -> str:
    """What to say of one of REFUSED."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT:.0f} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
