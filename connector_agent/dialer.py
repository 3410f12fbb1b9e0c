"""One try to open a tunnel: DNS anew, TCP or a proxy, TLS, WebSocket; and probes that find out why it failed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from connector_agent import handshake
from connector_agent.handshake import DialError
from connector_agent.proxy import (
    Proxy,
    ProxyError,
    connect_through,
    is_exempt,
    is_loopback,
    no_proxy_from_environment,
    proxy_from_environment,
)
from connector_agent.tls_probe import probe_tls
from shared.pki.tls import unverified_client_context
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket import worker_protocol
from shared.tunnel.websocket_client import (
    CheckPeer,
    ClientTransport,
    Endpoint,
    HandshakeError,
    HandshakeRefused,
    TlsFailed,
    open_websocket,
)

if TYPE_CHECKING:
    from shared.tunnel.transport import MessageReceiver

CONNECT_TIMEOUT: Final = 3.0
"""Seconds for TCP to one address. Short, since a relay that is back should be found within a second or so."""

ROUTE_TIMEOUT: Final = 10.0
"""Seconds for DNS, all addresses, and the proxy's answer."""

MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried."""


_OF_THE_PROXY: Final = {"dns-failure": "proxy-dns-failure", "connection-refused": "proxy-connection-refused"}
"""What the way to the relay is called, and what the same on the way to the proxy."""


class ProxyChoice(NamedTuple):
    """The proxy for all relays, if any, and whom it is not for. `skips_loopback` where the environment named it."""

    proxy: Proxy | None = None
    no_proxy: tuple[str, ...] = ()
    skips_loopback: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ProxyChoice:
        """What https_proxy and no_proxy say. ProxyError where that cannot be read."""
        return cls(proxy_from_environment(environ), no_proxy_from_environment(environ))

    def for_host(self, host: str, port: int) -> Proxy | None:
        """The proxy by which this host is reached; None for directly."""
        if self.proxy is None or (self.skips_loopback and is_loopback(host)):
            return None
        return None if is_exempt(host, port, self.no_proxy) else self.proxy


class Contexts(NamedTuple):
    """The connector's side of TLS: with its certificate, and without, for the probe."""

    own: ssl.SSLContext
    bare: ssl.SSLContext


class Dialer:
    """Opens WebSockets to relays. `contexts` is asked at each try, so that renewed files count."""

    def __init__(
        self, contexts: Callable[[], Contexts], proxies: ProxyChoice | None = None, check_peer: CheckPeer | None = None
    ) -> None:
        self.proxies = proxies or ProxyChoice()
        self._contexts = contexts
        self._check_peer = check_peer or (lambda _certificate: None)
        self._buffers = ReadBuffers()

    async def dial(
        self,
        host: str,
        port: int,
        open_receiver: Callable[[ClientTransport], MessageReceiver],
        worker: int | None = None,
    ) -> ClientTransport:
        """One try; `worker` is the process of the relay that is asked for. Raises DialError; then, and when cancelled,
        nothing is left open."""
        endpoint = Endpoint(host, port, protocol=None if worker is None else worker_protocol(worker))
        contexts = self._contexts()
        try:
            raw = await self.route(host, port)
            return await open_websocket(
                raw, contexts.own, self._buffers, endpoint, open_receiver, check_peer=self._check_peer
            )
        except TlsFailed as error:
            raise await self._explain_tls(error, endpoint, contexts) from error
        except (HandshakeError, OSError, ssl.SSLError, ProxyError, UnicodeError) as error:  # the last: of odd names
            raise handshake.explain(error, _where(endpoint)) from error

    async def route(self, host: str, port: int) -> asyncio.Transport:
        """A paused TCP transport whose other end is the relay. TimeoutError after ROUTE_TIMEOUT."""
        proxy = self.proxies.for_host(host, port)
        async with asyncio.timeout(ROUTE_TIMEOUT):
            if proxy is None:
                return await connect(host, port)
            try:
                raw = await connect(proxy.host, proxy.port)
            except OSError as error:
                cause = handshake.explain(error, f"the proxy {proxy}")
                code = _OF_THE_PROXY.get(cause.code, "proxy-unreachable")
                raise DialError(code, cause.text, "Check the proxy's address.") from error
            try:
                return await connect_through(raw, proxy, host, port)
            except ssl.SSLError as error:
                raise DialError("proxy-tls-failed", f"TLS with the proxy {proxy} failed: {error.reason}.") from error

    async def _explain_tls(self, error: TlsFailed, endpoint: Endpoint, contexts: Contexts) -> DialError:
        """TLS says little by itself: a second connection may say who signed the certificate, or that it is ours."""
        try:
            if handshake.is_untrusted(error):
                return handshake.untrusted(_where(endpoint), await self._probe_issuer(endpoint))
            if handshake.is_about_our_certificate(error) and await self._gets_in_without(endpoint, contexts.bare):
                return handshake.refused_certificate(error)
        except (HandshakeError, OSError, ssl.SSLError, ProxyError, DialError):
            pass  # the first failure is what counts
        return handshake.explain(error, _where(endpoint))

    async def _probe_issuer(self, endpoint: Endpoint) -> str | None:
        """Who signed what the server shows. The connection is unverified, and nothing is sent on it."""
        raw = await self.route(endpoint.host, endpoint.port)
        shown = await probe_tls(raw, unverified_client_context(), self._buffers, endpoint)
        return None if shown.certificate is None else shown.certificate.issuer.rfc4514_string()

    async def _gets_in_without(self, endpoint: Endpoint, context: ssl.SSLContext) -> bool:
        """Whether the relay lets a client without a certificate in, as far as telling it that it needs one."""
        raw = await self.route(endpoint.host, endpoint.port)
        try:
            await open_websocket(raw, context, self._buffers, endpoint, _no_receiver)
        except HandshakeRefused as error:
            return handshake.explain_refusal(error).code == "certificate-required"
        return False


def _no_receiver(transport: ClientTransport) -> MessageReceiver:
    raise RuntimeError("a probe opened a tunnel")


def _where(endpoint: Endpoint) -> str:
    return f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"


class _Paused(asyncio.Protocol):
    """Holds a transport until its real protocol comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


async def connect(host: str, port: int) -> asyncio.Transport:
    """A paused TCP transport to the first address of `host` that answers. Raises OSError, TimeoutError among them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last: OSError = OSError(f"{host} has no address")
    for family, kind, proto, _, address in _interleaved(found)[:MAX_ADDRESSES]:
        try:
            return await _connect_one(family, kind, proto, address)
        except OSError as error:
            last = error
    raise last


async def _connect_one(
    family: int, kind: int, proto: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, kind, proto)
    try:
        sock.settimeout(0)
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await loop.sock_connect(sock, address)
        transport, _ = await loop.create_connection(_Paused, sock=sock)
    except BaseException:
        sock.close()
        raise
    return transport


Info = TypeVar("Info", bound=tuple[object, ...])


def _interleaved(found: Sequence[Info]) -> list[Info]:
    """Families in turn, the system's favourite first: a broken one must not cost a time-out an address (RFC 8305)."""
    first = [one for one in found if one[0] == found[0][0]] if found else []
    rest = [one for one in found if one not in first]
    mixed: list[Info] = []
    while first or rest:
        mixed += first[:1] + rest[:1]
        first, rest = first[1:], rest[1:]
    return mixed
