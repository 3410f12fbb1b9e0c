"""The whole chain in one process, over real sockets: ingress, tunnel (TLS), connector, and a raw target that records.

A sender of raw bytes goes in at one end; at the other stands a target that trusts nothing: what reaches it is read by
the independent model, byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from connector_agent.app import ConnectorApp
from connector_agent.config import ConnectorConfig
from connector_agent.wiring import make_tunnels
from shared.config import read_config
from shared.logs import setup_logging
from shared.process import StopRequest
from tests.chain.oracle import ACCESS, HOST, TOKEN, Arrival, read_stream
from tests.cloud_relay.conftest import sha256
from tests.support.development import Pki

Document = dict[str, Any]


class RawTarget:
    """Takes what comes and answers each whole request by `answer`; `None` from it: no answer, the connection ends.

    `arrivals` are the whole requests, in order; `remains` what connections held at their end that was no whole one;
    `faults` what a strict reader of requests would have choked on.
    """

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.remains: list[bytes] = []
        self.faults: list[tuple[str, bytes]] = []
        self.connections = 0
        self.port = 0
        self.answer: Callable[[Arrival, RawConnection], None] = say_ok
        self._server: asyncio.Server | None = None
        self._open: set[RawConnection] = set()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: RawConnection(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        for _ in range(5):  # what was accepted has to become a connection first, or its socket would stay open
            await asyncio.sleep(0)
        self._server.close()
        for connection in tuple(self._open):
            connection.transport.abort()
        while self._open:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)  # the sockets are closed after their protocols are told
        await self._server.wait_closed()

    def made(self, connection: RawConnection) -> None:
        self.connections += 1
        self._open.add(connection)

    def lost(self, connection: RawConnection, rest: bytes) -> None:
        self._open.discard(connection)
        if rest:
            self.remains.append(rest)


class RawConnection(asyncio.Protocol):
    """One connection to the target. `number` counts them from 1."""

    transport: asyncio.Transport

    def __init__(self, target: RawTarget) -> None:
        self._target = target
        self._buffer = bytearray()
        self.number = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._target.made(self)
        self.number = self._target.connections

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        arrivals, used, fault = read_stream(bytes(self._buffer))
        del self._buffer[:used]
        if fault:
            self._target.faults.append((fault, bytes(self._buffer)))
            self.transport.abort()
        for arrival in arrivals:
            self._target.arrivals.append(arrival)
            self._target.answer(arrival, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._target.lost(self, bytes(self._buffer))


def say_ok(arrival: Arrival, connection: RawConnection) -> None:
    """200 with a body, save to HEAD."""
    body = b"" if arrival.method == b"HEAD" else b"ok"
    connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)


class Site:
    """A relay and a connector that run, their target, and where senders come in."""

    def __init__(self, relay: RelayApp, connector: ConnectorApp, target: RawTarget, logs: io.StringIO) -> None:
        self.relay = relay
        self.connector = connector
        self.target = target
        self.logs = logs

    @property
    def port(self) -> int:
        assert self.relay.doors is not None
        bound = next(door["bound"][0] for door in self.relay.doors.describe() if door["kind"] == "ingress")
        return int(bound.rpartition(":")[2])

    async def until(self, condition: Callable[[], bool], limit: float = 20.0) -> None:
        async with asyncio.timeout(limit):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_quiet(self) -> None:
        """Nothing is in flight on either side, and no memory is held."""
        await self.until(lambda: not (self.relay.in_flight or self.connector.in_flight))
        await self.until(lambda: not (self.relay.budget.used or self.connector.budget.used))


def relay_document(pki: Pki) -> Document:
    pair = pki.relay()
    return {
        "state_dir": "relay-state",
        "trust_domain": "qanat.test",
        "tunnel": {
            "listen": "127.0.0.1:0",
            "tls": {"certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(pki.ca)},
        },
        "ingress": [{"listen": "127.0.0.1:0"}],
        "tenants": {
            "acme": {
                "locations": ["walldorf"],
                "senders": [{"name": "s4", "bearer": {"token_hash": sha256(TOKEN.decode())}}],
                "routes": [
                    {
                        "name": "all",
                        "match": {"host": HOST.decode(), "path": "/"},
                        "senders": ["s4"],
                        "to": {"location": "walldorf", "target": "main"},
                    }
                ],
            }
        },
    }


def connector_document(pki: Pki, tunnel_port: int, target_port: int) -> Document:
    pair = pki.connector()
    rules = [{"methods": list(methods), "path": path, "sub_paths": below} for methods, path, below in ACCESS]
    return {
        "relays": [f"wss://localhost:{tunnel_port}"],
        "state_dir": "connector-state",
        "tls": {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(pki.ca)},
        "targets": [
            {
                "name": "main",
                "url": f"http://127.0.0.1:{target_port}",
                "allow": rules,
                "probe": {"kind": "none"},  # what arrives there is counted
            }
        ],
    }


def write(path: Path, document: Document) -> Path:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """All of it, with its tunnels up. Access lines go to standard output, all other lines to `logs`."""
    logs = io.StringIO()
    setup_logging("json", "info", logs)
    pki = Pki(folder)
    target = RawTarget()
    await target.open()
    relay_path = write(folder / "relay.yaml", relay_document(pki))
    relay = RelayApp(relay_path, read_config(relay_path, RelayConfig))
    await relay.start(StopRequest())
    assert relay.doors is not None
    bound = next(door["bound"][0] for door in relay.doors.describe() if door["kind"] == "tunnel")
    document = connector_document(pki, int(bound.rpartition(":")[2]), target.port)
    path = write(folder / "connector.yaml", document)
    connector = ConnectorApp(path, read_config(path, ConnectorConfig), lambda app: make_tunnels(app, {}))
    await connector.start(StopRequest())
    made = Site(relay, connector, target, logs)
    try:
        await made.until(lambda: connector.tunnels.open_count == 2)
        await made.until(lambda: relay.registry.count(("acme", "walldorf", "main")) == 2)
        yield made
    finally:
        await connector.stop()
        await relay.stop()
        await target.close()


async def exchange(port: int, data: bytes, step: int, is_enough: Callable[[bytes], bool]) -> bytes:
    """Send `data` in segments of `step` bytes (0: whole); all that came back until the relay hung up.

    When `is_enough` says so of what came, this side hangs up, and takes what still comes.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    received = bytearray()

    async def send() -> None:
        if not step:
            await loop.sock_sendall(sock, data)
            return
        for start in range(0, len(data), step):
            await loop.sock_sendall(sock, data[start : start + step])
            for _ in range(2):  # in the first turn the loop learns of the segment, in the second it is read
                await asyncio.sleep(0)

    async def read() -> None:
        while chunk := await loop.sock_recv(sock, 65536):
            received.extend(chunk)
            if has_sent and is_enough(bytes(received)):
                hang_up()

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    has_sent = False
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reading = asyncio.Task(read())
        with contextlib.suppress(OSError):  # refused early, and cut off for sending on
            await send()
        has_sent = True
        if is_enough(bytes(received)):
            hang_up()
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionResetError):
                await reading
    finally:
        sock.close()
    return bytes(received)
