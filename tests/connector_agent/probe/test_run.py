"""Probes over real sockets: what each kind finds out, and what it leaves behind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trustme

from connector_agent.metrics import ConnectorMetrics
from connector_agent.probe.run import probe_target, run_probe
from connector_agent.probe.spec import ProbeKind, ProbeSpec, StatusRange
from connector_agent.tcp.target import TcpTarget
from connector_agent.upstream.connect import Endpoint
from shared.pki.tls import target_client_context
from shared.tasks import spawn
from tests.support.ports import free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HOST: Final = [(b"Host", b"target.test")]
TCP: Final = ProbeSpec(ProbeKind.TCP)
TLS: Final = ProbeSpec(ProbeKind.TLS)


def http(path: bytes = b"/health", *statuses: int, timeout: float = 3.0) -> ProbeSpec:
    wanted = tuple(StatusRange(one, one) for one in statuses) or (StatusRange(200, 299),)
    return ProbeSpec(ProbeKind.HTTP, timeout, path=path, statuses=wanted)


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


def server_tls(ca: trustme.CA, *, asks_for: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    if asks_for is not None:
        asks_for.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def listening(serve: Serve | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A target; whoever connected is gone by the end, or the test fails."""
    under_way: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            if serve is not None:
                await serve(reader, writer)
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            under_way.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(2):
            while under_way:  # the probe left a connection open
                await asyncio.sleep(0.005)
    finally:
        server.close()


def answering(answer: bytes, seen: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        writer.write(answer)

    return serve


async def test_tcp() -> None:
    async with listening() as port:
        result = await run_probe(Endpoint("127.0.0.1", port), TCP, [])
    assert result.is_good
    assert (result.detail, result.status) == ("", 0)
    assert 0 < result.seconds < 3
    assert result.at > 1.7e9


async def test_nothing_listens() -> None:
    port = free_port()
    result = await run_probe(Endpoint("127.0.0.1", port), TCP, [])
    assert result.code == "target-unreachable"
    assert str(port) in result.detail


async def test_an_address_that_is_not_allowed() -> None:
    result = await run_probe(Endpoint("169.254.169.254", 80), TCP, [])
    assert result.code == "target-address-refused"


async def test_tls(ca: trustme.CA, tmp_path: Path) -> None:
    context = target_client_context(tmp_path / "ca.pem")
    async with listening(tls=server_tls(ca)) as port:
        assert (await run_probe(Endpoint("localhost", port, context), TLS, [])).is_good
    async with listening(tls=server_tls(trustme.CA())) as port:
        result = await run_probe(Endpoint("localhost", port, context), TLS, [])
        assert result.code == "target-tls-failed"
        # Of kind tcp it is not asked.
        assert (await run_probe(Endpoint("localhost", port, context), TCP, [])).is_good


async def test_tls_with_a_certificate_that_is_refused_only_after_the_handshake(ca: trustme.CA, tmp_path: Path) -> None:
    own = ca.issue_cert("connector.test")
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    (tmp_path / "own.key").chmod(0o600)
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    without = target_client_context(tmp_path / "ca.pem")
    with_one = target_client_context(tmp_path / "ca.pem", tmp_path / "own.pem", tmp_path / "own.key")
    async with listening(tls=server_tls(ca, asks_for=ca)) as port:
        result = await run_probe(Endpoint("localhost", port, without), TLS, [])
        assert result.code == "target-tls-failed"
        assert "client certificate" in result.detail
        assert (await run_probe(Endpoint("localhost", port, with_one), TLS, [])).is_good


async def test_http() -> None:
    seen: list[bytes] = []
    async with listening(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen)) as port:
        result = await run_probe(Endpoint("127.0.0.1", port), http(b"/health?full=1"), [*HOST, (b"X-Key", b"secret")])
    assert result.is_good
    assert result.status == 204
    (request,) = seen
    assert request.splitlines() == [
        b"GET /health?full=1 HTTP/1.1", b"Host: target.test", b"X-Key: secret", b"User-Agent: qanat-probe",
        b"Accept: */*", b"Connection: close", b"",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "expected", "code", "status"),
    [
        (b"HTTP/1.1 503 Nope\r\nContent-Length: 900\r\n\r\nx", (), "target-unexpected-status", 503),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", (), "target-unexpected-status", 302),
        (b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n", (200, 401), "", 401),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", (), "", 200),
        (b"SSH-2.0-OpenSSH_9.2\r\n", (), "target-malformed-answer", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", (), "target-malformed-answer", 0),
    ],
)
async def test_answers(answer: bytes, expected: tuple[int, ...], code: str, status: int) -> None:
    async with listening(answering(answer)) as port:
        result = await run_probe(Endpoint("127.0.0.1", port), http(b"/", *expected), HOST)
    assert (result.code, result.status) == (code, status)


async def test_a_target_that_ends_the_connection() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with listening(leave) as port:
        result = await run_probe(Endpoint("127.0.0.1", port), http(), HOST)
    assert result.code == "connection-closed"


async def test_a_target_that_takes_the_connection_and_says_nothing() -> None:
    async with listening() as port:
        result = await run_probe(Endpoint("127.0.0.1", port), http(timeout=0.1), HOST)
    assert result.code == "target-too-slow"
    assert 0.09 < result.seconds < 2


async def test_https(ca: trustme.CA, tmp_path: Path) -> None:
    endpoint = Endpoint("localhost", 0, target_client_context(tmp_path / "ca.pem"))
    async with listening(answering(b"HTTP/1.1 200 OK\r\n\r\n"), server_tls(ca)) as port:
        result = await run_probe(endpoint._replace(port=port), http(), HOST)
    assert (result.code, result.status) == ("", 200)


async def test_cancelled_it_leaves_nothing_open() -> None:
    async with listening() as port:
        task = spawn(run_probe(Endpoint("127.0.0.1", port), http(), HOST), "probe")
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_none_is_no_probe() -> None:
    with pytest.raises(ValueError, match="none"):
        await run_probe(Endpoint("127.0.0.1", 1), ProbeSpec(ProbeKind.NONE), [])


async def test_a_target_is_probed_as_its_config_says() -> None:
    metrics = ConnectorMetrics()
    async with listening() as port:
        target = TcpTarget(
            "syslog", Endpoint("127.0.0.1", port), metrics.tcp.target("syslog"), max_connections=1, idle=1.0
        )
        assert (await probe_target(target)).is_good
        assert (await probe_target(target, http(timeout=0.1))).code == "target-too-slow"
