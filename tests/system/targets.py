"""A target inside the test's process: it records what arrives, and misbehaves where the path says so.

/hang        reads the push and never answers
/reset       sends half an answer, then RST
/cut         sends half an answer, then FIN
/garbage     answers with something that is no HTTP
/slow/<s>    answers after so many seconds
/status/<n>  answers with this status
all others   200, with a header and a body
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from typing import NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it"
BODY = b"taken by the target"


class Received(NamedTuple):
    """One push as it arrived whole. Header names are in lower case; `at` is monotonic time."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        """What `?id=` says."""
        return parse_qs(urlsplit(self.path).query).get("id", [""])[0]


class Target:
    """Listens on a free port of 127.0.0.1 from `open` to `close`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.begun = 0
        """Pushes whose head arrived."""
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    @property
    def ids(self) -> set[str]:
        """Of all pushes that arrived whole."""
        return {one.id for one in self.received}

    @property
    def open_connections(self) -> int:
        return len(self._transports)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._server is not None:
            self._server.close()
        for transport in list(self._transports):
            transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        transport = writer.transport
        self._tasks.add(task)
        self._transports.add(transport)
        try:
            while (push := await self._read(reader)) is not None:
                self.received.append(push)
                if not await _answer(push, reader, writer):
                    break
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the other side hung up, or the target is closed
        finally:
            self._tasks.discard(task)
            self._transports.discard(transport)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        self.begun += 1
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(method, path, headers, body, time.monotonic())


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")


async def _answer(push: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answers as the path says; whether the connection may go on."""
    _, kind, *rest = urlsplit(push.path).path.split("/")
    if kind == "hang":
        await reader.read()  # until the other side hangs up
        return False
    if kind == "garbage":
        writer.write(b"\x16\x03\x01 this is no HTTP at all\r\n\r\n")
        return False
    if kind in ("reset", "cut"):
        writer.write(HALF)
        await writer.drain()
        if kind == "reset":
            _reset(writer)
        return False
    if kind == "slow":
        await asyncio.sleep(float(rest[0]))
    status = int(rest[0]) if kind == "status" else 200
    body = b"" if status in (204, 304) or push.method == "HEAD" else BODY
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(BODY)
    writer.write(b"HTTP/1.1 %d Whatever\r\nX-Target: embedded\r\n%s\r\n%s" % (status, length, body))
    await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def open_target(tls: ssl.SSLContext | None = None) -> AsyncIterator[Target]:
    """A target that is closed at the end."""
    target = Target(tls)
    await target.open()
    try:
        yield target
    finally:
        await target.close()
