"""From a target's name to a connection: resolve anew, check every address, dial the address that was checked.

Checking a name and then dialling the name would let DNS answer twice (rebinding); so what is dialled is the address,
and TLS still verifies the name. Foreign exceptions end here: what comes out is a LocalFault its detail for the log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from shared.errors import LocalFault

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LookUp = Callable[[str, int], Awaitable[Sequence[Any]]]
"""What `socket.getaddrinfo` gives of a host and a port, for TCP."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

TLS_SHUTDOWN: Final = 3.0
"""Seconds that a target may take for its side of TLS's goodbye; asyncio's default is 30."""

MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried. A name with more is a service of another kind than a target."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Endpoint(NamedTuple):
    """Where a target is. `context` None means plain TCP. `timeout` is in seconds, for all of resolving, TCP and TLS."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    networks: tuple[Network, ...] = ()
    timeout: float = 2.0

    def is_same_place(self, other: Endpoint) -> bool:
        """Whether both lead to the same address by the same rules, whatever certificates and time-outs they use."""
        return (self.host, self.port, self.context is None, self.networks) == (
            other.host, other.port, other.context is None, other.networks
        )  # fmt: skip

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def refusal(address: str, networks: Sequence[Network]) -> str | None:
    """Why this address may not be dialled, None if it may. `networks` empty means any unicast address."""
    try:
        ip = _effective(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return "is no IP address"
    if ip.is_unspecified:
        return "is the unspecified address"
    if ip.is_link_local:
        return "is link-local"
    if ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
        return "is multicast or broadcast"
    if networks and not any(ip.version == network.version and ip in network for network in networks):
        return "is in none of the target's networks"
    return None


def _effective(ip: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, NAT64), if any: that is who gets the packets."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


async def connect(
    endpoint: Endpoint,
    factory: Callable[[], ProtocolT],
    loop: asyncio.AbstractEventLoop,
    look_up: LookUp | None = None,
) -> ProtocolT:
    """A connection to the endpoint, within its timeout. Without `look_up` the loop resolves its name.

    Raises LocalFault: target-unreachable, target-address-refused, target-tls-failed. Cancelled, it leaves nothing open.
    """
    try:
        async with asyncio.timeout(endpoint.timeout):
            addresses = allowed(endpoint, await resolve(endpoint, loop, look_up))
            return await _dial_in_turn(endpoint, addresses, factory, loop)
    except TimeoutError:
        raise LocalFault("target-unreachable", f"{endpoint}: no connection within {endpoint.timeout:g} s") from None


async def resolve(endpoint: Endpoint, loop: asyncio.AbstractEventLoop, look_up: LookUp | None = None) -> list[str]:
    """Every address of the endpoint's host, whether it may be dialled or not. LocalFault where there is none."""
    look_up = look_up or partial(loop.getaddrinfo, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    try:
        found = await look_up(endpoint.host, endpoint.port)
    except (OSError, UnicodeError) as error:
        raise LocalFault("target-unreachable", f"{endpoint.host}: cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def allowed(endpoint: Endpoint, addresses: Sequence[str]) -> list[str]:
    """Those that are dialled. LocalFault (target-address-refused) where there is none, with the reasons."""
    dialled = [address for address in addresses if refusal(address, endpoint.networks) is None]
    if not dialled:
        reasons = "; ".join(f"{address} {refusal(address, endpoint.networks)}" for address in addresses[:MAX_ADDRESSES])
        raise LocalFault("target-address-refused", f"{endpoint.host}: {reasons or 'no address'}")
    return dialled[:MAX_ADDRESSES]


async def _dial_in_turn(
    endpoint: Endpoint, addresses: list[str], factory: Callable[[], ProtocolT], loop: asyncio.AbstractEventLoop
) -> ProtocolT:
    """Try one address after the other, each for an even share of the time left, so that none starves the next."""
    stop = loop.time() + endpoint.timeout
    fault = LocalFault("target-unreachable", f"{endpoint}: no address")
    for tried, address in enumerate(addresses):
        share = max(0.05, (stop - loop.time()) / (len(addresses) - tried))
        try:
            async with asyncio.timeout(share):
                return await _dial(endpoint, address, factory, loop)
        except TimeoutError:
            fault = LocalFault("target-unreachable", f"{endpoint} at {address}: no connection within {share:.1f} s")
        except LocalFault as error:
            fault = error
    raise fault


async def _dial(
    endpoint: Endpoint, address: str, factory: Callable[[], ProtocolT], loop: asyncio.AbstractEventLoop
) -> ProtocolT:
    context = endpoint.context
    try:
        if context is None:
            transport, protocol = await loop.create_connection(factory, address, endpoint.port)
        else:
            transport, protocol = await loop.create_connection(
                factory,
                address,
                endpoint.port,
                ssl=context,
                server_hostname=endpoint.host,
                ssl_handshake_timeout=endpoint.timeout,
                ssl_shutdown_timeout=TLS_SHUTDOWN,
            )
    except ssl.SSLCertVerificationError as error:
        raise LocalFault(
            "target-tls-failed", f"{endpoint} at {address}: its certificate is refused: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise LocalFault("target-tls-failed", f"{endpoint} at {address}: {error.reason or error}") from error
    except ssl.CertificateError as error:
        raise LocalFault("target-tls-failed", f"{endpoint} at {address}: {error}") from error
    except ConnectionError as error:
        # A listener that ends the connection in the middle of the handshake is there, but speaks no TLS with us.
        refused = isinstance(error, ConnectionRefusedError) or context is None
        code = "target-unreachable" if refused else "target-tls-failed"
        raise LocalFault(code, f"{endpoint} at {address}: {error.strerror or error}") from error
    except OSError as error:
        raise LocalFault("target-unreachable", f"{endpoint} at {address}: {error.strerror or error}") from error
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return protocol
