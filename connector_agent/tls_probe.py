"""A handshake in TLS that goes no further: what a server shows, and whether a context believes it."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509

from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket_client import ClientTransport, Endpoint

if TYPE_CHECKING:
    from shared.tunnel.transport import MessageReceiver

PROBE_TIMEOUT: Final = 3.0
"""Seconds for the handshake."""

_UNREADABLE: Final = (ValueError, x509.InvalidVersion)


class Shown(NamedTuple):
    """What a server showed. `chain` is what the context has verified, own certificate first; empty where it verifies
    nothing. A certificate that cannot be read is None, and missing in the chain."""

    version: str
    certificate: x509.Certificate | None
    chain: tuple[x509.Certificate, ...] = ()


async def probe_tls(raw: asyncio.Transport, context: ssl.SSLContext, buffers: ReadBuffers, endpoint: Endpoint) -> Shown:
    """Shake hands over `raw`, which must be paused, and end the connection; nothing is sent on it.

    Raises HandshakeError, or TimeoutError after PROBE_TIMEOUT.
    """
    probe = _Probe(asyncio.get_running_loop(), context, buffers, endpoint, _no_receiver)
    raw.set_protocol(probe)
    probe.connection_made(raw)
    raw.resume_reading()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await probe.opened
        return probe.shown
    finally:
        probe.abort()


class _Probe(ClientTransport):
    __slots__ = ("shown",)
    shown: Shown

    def tls_established(self) -> None:
        is_verified = self._tls.context.verify_mode is not ssl.CERT_NONE
        chain = [one for one in map(_read, self.peer_chain()) if one is not None] if is_verified else []
        der = self.peer_certificate()
        self.shown = Shown(self._tls.version() or "TLS", None if der is None else _read(der), tuple(chain))
        if not self.opened.done():
            self.opened.set_result(None)


def _read(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE:
        return None


def _no_receiver(transport: ClientTransport) -> MessageReceiver:
    raise RuntimeError("a probe opened a tunnel")
