"""The way to one relay: the name, a proxy, a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final

from connector_agent import handshake
from connector_agent.dialer import ROUTE_TIMEOUT, connect
from connector_agent.handshake import DialError
from connector_agent.proxy import Proxy, ProxyError, connect_through
from shared.addresses import is_address
from shared.errors import FAULTS
from shared.exits import ExitCode
from shared.prechecks import Checklist, Stopwatch
from shared.tunnel.websocket_client import HandshakeError

if TYPE_CHECKING:
    from connector_agent.prechecks.identity import Way
    from shared.config import HostPort

FAULTS_OF_A_STEP: Final = (HandshakeError, OSError, ssl.SSLError, ProxyError, UnicodeError, DialError)
"""What a step may fail with; TimeoutError is an OSError."""

_OF_THE_PROXY: Final = {
    "proxy-denied": "Have CONNECT to this host and port allowed at the proxy.",
    "proxy-cannot-connect": "The proxy is there: look whether the relay runs, and at the way from the proxy to it.",
    "proxy-tls-failed": "Look at the proxy's certificate: the system's CAs must know its issuer.",
}
_NO_PROXY_THERE: Final = "Check the proxy's host and port, and that it is an HTTP proxy that takes CONNECT."


class RouteCheck:
    """The steps, each with a line in `checks`, and whether it is worth to go on."""

    def __init__(self, relay: HostPort, way: Way, checks: Checklist) -> None:
        self._relay = relay
        self._way = way
        self._proxy = way.proxies.for_host(relay.host, relay.port)
        self.checks = checks

    async def resolve(self) -> bool:
        """The name of whoever is dialled: the proxy's, or the relay's."""
        hop = self._proxy or self._relay
        if is_address(hop.host):
            self.checks.skipped(f"{hop.host} is an address", "DNS")
            return True
        try:
            with Stopwatch() as watch:
                async with asyncio.timeout(ROUTE_TIMEOUT):
                    loop = asyncio.get_running_loop()
                    found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
        except FAULTS_OF_A_STEP as error:
            return self.failed("DNS", error, "Check the name, and this host's DNS: /etc/resolv.conf.")
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        self.checks.ok("DNS", f"{hop.host} is {', '.join(addresses[:4])}{', …' if addresses[4:] else ''}", watch.figure)
        return True

    async def through_proxy(self) -> bool:
        """Whether the proxy is there, and lets CONNECT to the relay through."""
        proxy = self._proxy
        if proxy is None:
            exempt = self._way.proxies.proxy
            why = "none is named" if exempt is None else f"no_proxy excepts this relay from {exempt}"
            self.checks.skipped(why, "proxy")
            return True
        try:
            with Stopwatch() as watch:
                async with asyncio.timeout(ROUTE_TIMEOUT):
                    raw = await connect(proxy.host, proxy.port)
                    raw = await connect_through(raw, proxy, self._relay.host, self._relay.port)
        except FAULTS_OF_A_STEP as error:
            return self._proxy_failed(proxy, error)
        raw.abort()
        self.checks.ok("proxy", f"{proxy} lets CONNECT through", watch.figure)
        return True

    def _proxy_failed(self, proxy: Proxy, error: Exception) -> bool:
        cause = handshake.explain(error, f"the proxy {proxy}")
        code = cause.code if cause.code.startswith("proxy-") else f"proxy-{cause.code}"
        remedy = _OF_THE_PROXY.get(code, _NO_PROXY_THERE)
        if code == "proxy-credentials-refused":
            remedy = "Name a file with one line user:password in proxy.auth_file."
            if proxy.authorization is not None:
                remedy = "Put what the proxy takes, user:password, into the file that proxy.auth_file names."
            elif not self._way.names_proxy:
                remedy = "The environment holds no credentials: name the proxy in the config, with proxy.auth_file."
        self.checks.failed("proxy", cause.text, remedy, code=code, exit_code=exit_code_for(code))
        return False

    async def connect(self) -> bool:
        """A connection to the relay itself."""
        if self._proxy is not None:
            self.checks.skipped("the proxy connects", "TCP")
            return True
        try:
            with Stopwatch() as watch:
                async with asyncio.timeout(ROUTE_TIMEOUT):
                    raw = await connect(self._relay.host, self._relay.port)
        except FAULTS_OF_A_STEP as error:
            return self.failed("TCP", error)
        peer = raw.get_extra_info("peername")
        raw.abort()
        self.checks.ok("TCP", f"connected to {peer[0]}" if peer else "", watch.figure)
        return True

    def failed(self, check: str, error: Exception, remedy: str = "") -> bool:
        """Say why a step failed; False."""
        whom = str(self._relay) if check != "DNS" or self._proxy is None else f"the proxy {self._proxy}"
        cause = handshake.explain(error, whom)
        self.checks.failed(check, cause.text, remedy or remedy_of(cause), code=cause.code)
        return False


def exit_code_for(*codes: str) -> ExitCode:
    """7 where all of these are about a credential of ours that somebody refuses, else 1."""
    is_about_us = bool(codes) and all(
        code.startswith("certificate-") or code in ("connector-blocked", "proxy-credentials-refused") for code in codes
    )
    return ExitCode.CREDENTIAL if is_about_us else ExitCode.FAILED


def remedy_of(cause: DialError) -> str:
    """Its own, or the catalogue's."""
    fault = FAULTS.get(cause.code)
    return cause.remedy or (fault.remedy if fault is not None else "") or "Look at the relay's log."
