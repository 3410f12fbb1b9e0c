"""What may stand between a connector and its relay: a box that opens TLS, and proxies that say no."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import trustme

from shared.tasks import cancel, spawn


@contextlib.asynccontextmanager
async def inspecting(port: int, name: str = "localhost") -> AsyncIterator[int]:
    """Ends TLS with a certificate of the CA "Corp Inspection", and goes on by TLS to `port`; where it listens."""
    inspection = trustme.CA(organization_name="Corp Inspection", organization_unit_name="Firewalls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inspection.issue_cert(name).configure_cert(context)
    onward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    onward.check_hostname = False
    onward.verify_mode = ssl.CERT_NONE

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, ssl=onward)
            except OSError:
                return
            with contextlib.closing(far_writer):
                ways = [spawn(_pump(reader, far_writer), "in"), spawn(_pump(far_reader, writer), "out")]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                await cancel(*ways)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def proxy_that_says(status: int) -> AsyncIterator[int]:
    """A proxy that answers each CONNECT with this status; where it listens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
