"""The way out through an HTTP proxy: which one, and CONNECT (RFC 9110, section 9.3.6).

The environment is a mapping that the caller hands in. What is read of it is what other tools read: https_proxy before
HTTPS_PROXY, no_proxy likewise. Credentials come from a file alone: in a URL they would show in process lists and logs.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, cast

MAX_ANSWER: Final = 16 * 1024
"""Bytes of a proxy's answer head."""

DEFAULT_PORTS: Final = {"http": 3128, "https": 443}
"""Where a URL names no port."""

_URL: Final = re.compile(r"(?:(https?)://)?(?:([^@/]*)@)?(\[[0-9A-Fa-f:.]+\]|[^:/@\[\]\s]+)(?::([0-9]{1,5}))?/?")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
_CREDENTIALS: Final = re.compile(r"[\x20-\x39\x3b-\x7e]+:[\x20-\x7e]*")


class ProxyError(Exception):
    """The proxy cannot be used. `code` is for logs and status, the text says what to do; it holds no credential."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


class Proxy(NamedTuple):
    """A proxy. `authorization` is the header's value, None to send none."""

    scheme: str
    host: str
    port: int
    authorization: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{_authority(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"<Proxy {self}{' with credentials' if self.authorization else ''}>"


def basic_authorization(content: bytes) -> str:
    """The header's value for a file with one line `user:password`. ProxyError without its content otherwise."""
    try:
        line = content.decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        line = ""
    if _CREDENTIALS.fullmatch(line) is None:
        raise ProxyError("proxy-bad-credentials", "proxy.auth_file must hold one line in ASCII: user:password")
    return "Basic " + base64.b64encode(line.encode("ascii")).decode("ascii")


def proxy_from_environment(environ: Mapping[str, str], authorization: str | None = None) -> Proxy | None:
    """The proxy for https that the environment names, if any. ProxyError where it cannot be read."""
    url = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    return parse_proxy(url.strip(), authorization) if url.strip() else None


def no_proxy_from_environment(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The entries of no_proxy, parted by commas or blanks."""
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return tuple(entry for entry in re.split(r"[,\s]+", text) if entry)


def parse_proxy(url: str, authorization: str | None = None) -> Proxy:
    """Read `[http://]host[:port]`. ProxyError for credentials in it, and for other kinds of proxy."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ProxyError("proxy-bad-url", "the proxy's URL is not http://host:port (SOCKS is not spoken)")
    scheme, credentials, host, port = match[1] or "http", match[2], match[3].strip("[]"), match[4]
    if credentials is not None:
        raise ProxyError("proxy-bad-url", "the proxy's URL holds credentials: use proxy.url and proxy.auth_file")
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if not 0 < number < 65536:
        raise ProxyError("proxy-bad-url", "the proxy's URL holds no port that can be")
    return Proxy(scheme, host.lower(), number, authorization)


def is_exempt(host: str, port: int, entries: Iterable[str]) -> bool:
    """Whether no_proxy names this host: `*`, a name, a domain (`.corp.local`), an address, a network, perhaps `:port`.

    As with curl a name also stands for all below it. A network only counts for a host that is given as an address.
    """
    name = host.lower().rstrip(".")
    return any(_matches(name, port, entry.strip().lower()) for entry in entries)


def is_loopback(host: str) -> bool:
    """Whether no proxy could reach it for us."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _matches(name: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    entry, wanted_port = _split_port(entry)
    if wanted_port is not None and wanted_port != port:
        return False
    entry = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
    if not entry:
        return False
    address = _address(name)
    if address is None:
        return name == entry or name.endswith("." + entry)
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return address.version == network.version and address in network


def _split_port(entry: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", entry)
    return (match[1], int(match[2])) if match else (entry, None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect_through(
    raw: asyncio.Transport, proxy: Proxy, host: str, port: int, context: ssl.SSLContext | None = None
) -> asyncio.Transport:
    """Ask `proxy`, to which `raw` (paused) is connected, for a way to host:port. Returns a paused transport.

    For an https proxy `context` verifies it. Raises ProxyError, ssl.SSLError or OSError; then, and when cancelled,
    nothing is left open. The caller bounds the time.
    """
    loop = asyncio.get_running_loop()
    transport: asyncio.Transport | None = raw
    try:
        if proxy.scheme == "https":
            context = context or ssl.create_default_context()
            transport = await loop.start_tls(raw, asyncio.Protocol(), context, server_hostname=proxy.host)
        if transport is None:
            raise ProxyError("proxy-closed", f"the proxy {proxy} ended the connection")
        protocol = _Connect(loop, proxy)
        transport.set_protocol(protocol)
        transport.write(_request(proxy, host, port))
        transport.resume_reading()
        await protocol.answered
    except BaseException:
        raw.abort()
        raise
    return transport


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    authority = _authority(host, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Connect(asyncio.Protocol):
    """Reads one answer head; then the transport is paused and somebody else's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self.answered: asyncio.Future[None] = loop.create_future()
        self._proxy = proxy
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.answered.done():
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > MAX_ANSWER:
                self._fail("proxy-bad-answer", "answered with an endless head")
            return
        match = _STATUS.match(head + b"\r\n")
        if match is None:
            self._fail("proxy-bad-answer", "answered with no HTTP")
        elif not 200 <= int(match[1]) < 300:
            self._refused(int(match[1]))
        elif rest:
            self._fail("proxy-bad-answer", "sent bytes that no relay can have sent yet")
        else:
            self.answered.set_result(None)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("proxy-closed", f"ended the connection without an answer{f': {exc}' if exc else ''}")

    def _refused(self, status: int) -> None:
        if status in (407, 401):  # 401 is wrong here, and what tinyproxy says to wrong credentials
            told = "refused the credentials" if self._proxy.authorization else "asks for credentials"
            self._fail("proxy-credentials-refused", f"{told} ({status}): look at proxy.auth_file")
        elif status == 403:
            self._fail("proxy-denied", "does not allow this host and port (403): have it allowed for CONNECT")
        elif status >= 500:  # that is what they say while the relay is away: no refusal, and soon over
            self._fail("proxy-cannot-connect", f"could not connect to the relay (CONNECT was answered with {status})")
        else:
            self._fail("proxy-denied", f"answered CONNECT with {status}")

    def _fail(self, code: str, what: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(ProxyError(code, f"the proxy {self._proxy} {what}"))
