from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import http_parser

from shared.config import Listen
from shared.observe import MAX_CONNECTIONS, HealthReport, ObserveServer


class State:
    report = HealthReport(ready=True)
    metrics = b"qanat_up 1\n"

    def health(self) -> HealthReport:
        return self.report

    def render(self) -> bytes:
        if not self.metrics:
            raise RuntimeError("a broken gauge")
        return self.metrics


@pytest.fixture
def state():
    return State()


@pytest.fixture
async def server(state):
    server = ObserveServer(Listen("127.0.0.1", 0), state.health, state.render)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def ask(server):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

        async def ask(path: str, method: str = "GET") -> tuple[int, str, str]:
            async with session.request(method, path) as response:
                assert response.headers["Server"] == "qanat"
                return response.status, response.content_type, await response.text()

        yield ask


async def test_the_process_lives(ask):
    assert await ask("/healthz") == (200, "text/plain", "ok\n")


async def test_ready(ask, state):
    state.report = HealthReport(ready=True, detail={"tunnels": 2})
    assert await ask("/readyz") == (
        200,
        "application/json",
        '{"schema":"qanat.readiness.v1","ready":true,"tunnels":2}\n',
    )


async def test_not_ready_is_a_503_with_the_reason(ask, state):
    state.report = HealthReport(ready=False, detail={"draining": True})
    status, _, body = await ask("/readyz")
    assert (status, '"draining":true' in body) == (503, True)
    assert (await ask("/healthz"))[0] == 200


async def test_metrics(ask):
    assert await ask("/metrics") == (200, "text/plain", "qanat_up 1\n")
    assert await ask("/metrics", "HEAD") == (200, "text/plain", "")


async def test_a_bug_is_not_shown(ask, state):
    state.metrics = b""
    status, _, body = await ask("/metrics")
    assert (status, body) == (500, "failed; the log says how\n")
    assert (await ask("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/healthz/", "GET", 404),
        ("/v1/status", "GET", 404),
        ("/metrics", "POST", 405),
        ("/x", "DELETE", 404),
    ],
)
async def test_there_is_nothing_else(ask, path, method, status):
    assert (await ask(path, method))[0] == status


async def test_long_requests_are_refused(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    await writer.wait_closed()


async def test_idle_connections_do_not_lock_the_door(server, ask):
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MAX_CONNECTIONS)]
    assert (await ask("/healthz"))[0] == 200
    oldest = idle[0][0]
    async with asyncio.timeout(5):
        assert await oldest.read() == b""
    for _, writer in idle:
        writer.close()


async def test_close_ends_kept_connections(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"ok\n")
    await server.close()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_an_address_that_is_taken(server, state):
    other = ObserveServer(Listen("127.0.0.1", server.port), state.health, state.render)
    with pytest.raises(OSError, match="Address already in use"):
        await other.start()
    await other.close()


async def test_the_c_parser_is_demanded(state, monkeypatch):
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(RuntimeError, match="C parser"):
        await ObserveServer(Listen("127.0.0.1", 0), state.health, state.render).start()


def test_the_port_is_known_once_it_listens(state):
    with pytest.raises(RuntimeError, match="not started"):
        _ = ObserveServer(Listen("127.0.0.1", 0), state.health, state.render).port
