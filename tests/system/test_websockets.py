"""WebSockets through the whole chain, with the websockets library at both ends, and nginx in front of the target."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.system.kit import Site
from tests.system.programs import Program, until
from tests.system.test_https_target import Nginx
from tests.system.test_reload import reloaded

pytestmark = pytest.mark.system

MIB = 1 << 20


async def serve_echo(connection) -> None:
    """Echo; the server closes first, with 4001, when told so."""
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            if message == "close":
                await connection.close(4001, "as told")
                return
            await connection.send(message)


@contextlib.asynccontextmanager
async def echo_target():
    async with serve(serve_echo, "127.0.0.1", 0, max_size=4 * MIB) as server:
        yield server.sockets[0].getsockname()[1]


def allow(site: Site, url: str) -> dict[str, Any]:
    """Let route and target have WebSockets; the target's config."""
    site.route["upgrade"] = ["websocket"]
    return site.expose(url, upgrade=["websocket"])


def dial(site: Site, path: str = "/ws", scheme: str = "wss"):
    trust = ssl.create_default_context(cafile=str(site.pki / "ca.pem")) if scheme == "wss" else None
    port = site.ports["tls" if scheme == "wss" else "plain"]
    headers = {"Authorization": site.basic}
    url = f"{scheme}://localhost:{port}{path}"
    return connect(
        url, ssl=trust, additional_headers=headers, max_size=4 * MIB, compression=None, proxy=None, open_timeout=20
    )


async def logged(program: Program, count: int) -> None:
    await until(lambda: len(program.access_lines) >= count, f"access lines of {program.name}")


async def talk(site: Site, scheme: str) -> None:
    async with dial(site, scheme=scheme) as client:
        for message in ("hello", b"\x00\xff" * 100, b"x" * MIB):
            await client.send(message)
            assert await client.recv() == message
        await asyncio.gather(*[client.send(b"%d" % n * 1000) for n in range(50)])
        assert [await client.recv() for _ in range(50)] == [b"%d" % n * 1000 for n in range(50)]
        await client.close(4002, "the client is done")
    assert client.close_code == 4002
    assert (client.protocol.close_rcvd is not None) == (client.protocol.close_sent is not None)
    async with dial(site, scheme=scheme) as client:
        await client.send("close")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        began = asyncio.get_running_loop().time()
        await client.wait_closed()
        assert asyncio.get_running_loop().time() - began < 5.0  # not the ten seconds that a client would wait
    assert (client.close_code, client.close_reason) == (4001, "as told")


async def test_a_conversation(site: Site):
    async with echo_target() as port:
        allow(site, f"http://127.0.0.1:{port}")
        await site.start()
        for scheme in ("wss", "ws"):
            await talk(site, scheme)
        await logged(site.relay, 4)
        await logged(site.connector, 4)
    for program in (site.relay, site.connector):
        for line in program.access_lines:
            assert line["status"] == 101
            assert "code" not in line
        assert max(line["bytes_in"] for line in program.access_lines) > MIB
        assert max(line["bytes_out"] for line in program.access_lines) > MIB
    assert [line["bytes_in"] for line in site.relay.access_lines] == [
        line["bytes_in"] for line in site.connector.access_lines
    ]


async def test_without_permission_the_wish_is_dropped(site: Site):
    async with echo_target() as port:
        site.expose(f"http://127.0.0.1:{port}")
        await site.start()
        with pytest.raises(InvalidStatus) as caught:
            await dial(site)
        assert caught.value.response.status_code == 426  # what this target says to a plain GET
        assert "Qanat-Error" not in caught.value.response.headers


async def test_a_lost_tunnel_is_no_clean_end(site: Site):
    async with echo_target() as port:
        allow(site, f"http://127.0.0.1:{port}")
        await site.start()
        async with dial(site) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            await site.connector.kill()
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(client.recv(), 10)
            assert client.close_code == 1006
        await logged(site.relay, 1)
        assert site.relay.access_lines[0]["code"] == "tunnel-lost"


async def test_a_removed_permission_ends_it_and_so_does_a_drain(site: Site):
    async with echo_target() as port:
        allow(site, f"http://127.0.0.1:{port}")
        site.relay_config["drain"] = {"timeout": "300ms"}
        await site.start()
        for ended_by in ("relay", "c1"):
            config = site.route if ended_by == "relay" else site.connector_config()["targets"][0]
            program = site.relay if ended_by == "relay" else site.connector
            async with dial(site) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                del config["upgrade"]
                await reloaded(site, ended_by, by="SIGHUP")
                with pytest.raises(ConnectionClosedError):
                    await asyncio.wait_for(client.recv(), 1.0)
            await logged(program, 1)
            config["upgrade"] = ["websocket"]
            await reloaded(site, ended_by, by="SIGHUP")
        async with dial(site) as client:
            site.relay.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(client.recv(), 10)
        assert await site.relay.ended() == 0
        await logged(site.connector, 3)
    assert [line["code"] for line in site.relay.access_lines] == ["no-such-route", "unknown-target", "starting"]
    assert [line["code"] for line in site.connector.access_lines] == ["no-such-route", "unknown-target", "starting"]


PROXIED = """
location /ws {{
  proxy_pass http://127.0.0.1:{target};
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection "upgrade";
}}
"""


async def test_a_target_behind_nginx_and_tls(site: Site, peer):
    nginx = Nginx(site, peer("nginx"))
    async with echo_target() as target:
        await nginx.start(PROXIED.format(target=target))
        allow(site, nginx.url)["tls"] = {"ca": "corp.pem"}
        await site.start()
        await talk(site, "wss")
        await logged(site.connector, 2)
    assert ["code" in line for line in site.connector.access_lines] == [False, False]
