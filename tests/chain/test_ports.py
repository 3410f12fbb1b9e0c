"""Sealed routes by SNI, shared ports, and the PROXY protocol, through the whole chain."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cloud_relay.show import status_tables
from shared.tcp.head import Ends as Addresses
from shared.tcp.proxy_v2 import decode, encode
from tests.cloud_relay.conftest import sha256
from tests.support.chain import chain, tcp_route
from tests.support.development import Pki
from tests.support.ends import dial, until
from tests.support.hellos import REAL, message, records
from tests.support.ports import free_port
from tests.support.tls_ends import TlsClient, files, listener


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def runs(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return runs


# --- sealed


@asynccontextmanager
async def tls_target(pki: Pki, *names: str, file: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A target that ends TLS, and answers `<its first name> <what it got>`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pair = pki.server(*names, file=file)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            data = await reader.readline()
            seen.append(data)
            writer.write(names[0].encode() + b" " + data)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1], seen
    server.close()


def ask(sock: ssl.SSLSocket) -> tuple[bytes, str | None]:
    sock.sendall(b"hello\n")
    answer = sock.recv(1000)
    protocol = sock.selected_alpn_protocol()
    sock.close()
    return answer, protocol


def test_sealed_routes_share_a_port_by_name(run, tmp_path):
    async def main() -> None:
        (tmp_path / "targets").mkdir()
        pki, port = Pki(tmp_path / "targets"), free_port()
        async with (
            tls_target(pki, "a.example.com", file="a") as (one, seen_one),
            tls_target(pki, "x.b.example.com", file="b") as (two, seen_two),
            chain(
                tmp_path,
                [tcp_route("a", port, sni="A.example.com"), tcp_route("b", port, sni=["*.b.example.com"])],
                [{"name": "a", "tcp": f"127.0.0.1:{one}"}, {"name": "b", "tcp": f"127.0.0.1:{two}"}],
            ) as made,
        ):
            for name in ("a.example.com", "x.b.example.com"):
                client = TlsClient(port, name, pki.ca)
                client.context.check_hostname = True  # it is the target's certificate that the sender sees
                client.context.set_alpn_protocols(["h2"])
                await client.connect()
                assert await client.call(ask) == (name.encode() + b" hello\n", "h2")
            assert seen_one == seen_two == [b"hello\n"]
            await until(lambda: len(made.relay_lines) == 2)
            assert [line["server_name"] for line in made.relay_lines] == ["a.example.com", "x.b.example.com"]
            strangers: tuple[tuple[str | None, str], ...] = (
                ("c.example.com", "UNRECOGNIZED_NAME"),
                ("b.example.com", "UNRECOGNIZED_NAME"),
                ("y.x.b.example.com", "UNRECOGNIZED_NAME"),
                (None, "MISSING_EXTENSION"),
            )
            for stranger, alert in strangers:
                with pytest.raises(ssl.SSLError, match=alert):
                    await TlsClient(port, stranger, pki.ca).connect()
            faults = made.relay.metrics.listener(f"127.0.0.1:{port}").faults
            assert faults == {"unknown-server-name": 4}

    run(main)


def test_fragments_garbage_and_silence(run, tmp_path, monkeypatch):
    monkeypatch.setattr("cloud_relay.ports.arrival.DEADLINE", 0.5)

    async def main() -> None:
        port = free_port()
        async with (
            listener() as (target, ends),
            chain(
                tmp_path, [tcp_route("a", port, sni="otlp.example.com")], [{"name": "a", "tcp": f"127.0.0.1:{target}"}]
            ),
        ):
            whole = records(message(REAL), [1, 2, 3, 50, 1])
            near = await dial(port)
            for start in range(0, len(whole), 23):
                near.send(whole[start : start + 23])
                await asyncio.sleep(0.002)
            await until(lambda: ends and ends[0].data == whole)  # not a byte more, less or other
            near.send(b"and on")
            await until(lambda: ends[0].data == whole + b"and on")
            near.reset()
            for sent, alert in (
                (b"GET / HTTP/1.1\r\n\r\n", 10),
                (b"\x16\x03\x01\x40\x01" + bytes(20_000), 22),
                (b"\x16\x03\x01\x00\x04\x01\x00\x40\x01", 47),
                (whole[:60], 50),
            ):
                bad = await dial(port)
                bad.send(sent)
                await until(lambda: {"eof", "reset"} & set(bad.events))  # noqa: B023 - awaited at once
                assert bytes(bad.data) == bytes((21, 3, 3, 0, 2, 2, alert)), sent[:20]
                bad.reset()
            ended = await dial(port)
            ended.send(whole[:30])
            ended.end()
            await until(lambda: ended.data == bytes((21, 3, 3, 0, 2, 2, 50)))
            silent = await dial(port)
            await until(lambda: silent.events == ["reset"])
            assert len(ends) == 1

    run(main)


def test_tunnel_ingress_and_routes_on_one_port(run, tmp_path):
    async def main() -> None:
        (tmp_path / "targets").mkdir()
        pki, port = Pki(tmp_path / "targets"), free_port()
        listen = f"127.0.0.1:{port}"
        edge = files(pki.server("push.example.com", file="edge"))
        async with (
            tls_target(pki, "a.example.com", file="a") as (one, _),
            listener() as (two, ends),
            chain(
                tmp_path,
                [tcp_route("a", port, sni="a.example.com"), tcp_route("b", port, sni="b.example.com", tls=edge)],
                [{"name": "a", "tcp": f"127.0.0.1:{one}"}, {"name": "b", "tcp": f"127.0.0.1:{two}"}],
                ingress=[{"listen": listen, "tls": edge}],
                tunnel={"listen": listen, "advertise": [f"localhost:{port}"]},
                senders=[{"name": "s4", "bearer": {"token_hash": sha256("t")}}],
                http_routes=[
                    {"name": "h", "match": {"host": "push.example.com", "path": "/"}, "senders": ["s4"],
                     "to": {"location": "walldorf", "target": "none"}, "hold": 0},
                ],
            ) as made,
        ):  # fmt: skip
            sealed = await TlsClient(port, "a.example.com", pki.ca).connect()
            assert (await sealed.call(ask))[0] == b"a.example.com hello\n"
            ended = await TlsClient(port, "b.example.com", pki.ca).connect()
            await ended.call(lambda sock: sock.sendall(b"clear"))
            await until(lambda: ends and ends[0].data == b"clear")
            assert ended.sock is not None
            ended.sock.close()
            for name in ("push.example.com", "anything.else"):
                http = await TlsClient(port, name, pki.ca).connect()

                def get(sock: ssl.SSLSocket) -> bytes:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: push.example.com\r\n\r\n")
                    answer = sock.recv(12)
                    sock.close()
                    return answer

                assert await http.call(get) == b"HTTP/1.1 401"
            kinds = [door["kind"] for door in made.relay.status()["listeners"]]
            assert kinds == ["tunnel+ingress+tcp"]
            assert status_tables(made.relay.status()) is not None
            await made.doors.close_ingress(0)  # senders find it closed, connectors do not
            with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                await TlsClient(port, "a.example.com", pki.ca).connect()
            made.lose_tunnels()
            await until(lambda: not made.connector.tunnels.open_count)
            await until(lambda: made.connector.tunnels.open_count)

    run(main)


# --- PROXY


TOLD = Addresses("192.0.2.7", 4711, "198.51.100.1", 6514)


def test_the_proxy_protocol_in_and_out(run, tmp_path):
    async def main() -> None:
        port = free_port()
        async with (
            listener() as (target, ends),
            chain(
                tmp_path,
                [tcp_route("logs", port, proxy_from=["127.0.0.0/8"], networks=["192.0.2.0/24"])],
                [{"name": "logs", "tcp": f"127.0.0.1:{target}", "proxy_protocol": True}],
            ) as made,
        ):
            near = await dial(port)
            header = encode(TOLD)
            near.send(header[:5])
            await asyncio.sleep(0.02)
            near.send(header[5:] + b"line\n")
            await until(lambda: ends and ends[0].data.endswith(b"line\n"))
            assert decode(bytes(ends[0].data[:-5])).ends == TOLD
            near.reset()
            await until(lambda: made.relay_lines)
            assert made.relay_lines[0]["source"] == "192.0.2.7"
            for sent in (b"line without a header\n", encode(TOLD._replace(source="10.0.0.1"))):
                bad = await dial(port)
                bad.send(sent)
                await until(lambda: bad.events == ["reset"])  # noqa: B023 - awaited at once
            assert len(ends) == 1
            assert made.relay_lines[-1]["code"] == "sender-network-refused"
            assert made.relay.metrics.listener(f"127.0.0.1:{port}").faults == {"bad-proxy-header": 1}

    run(main)


def test_only_a_trusted_load_balancer_may_speak_it(run, tmp_path):
    async def main() -> None:
        port = free_port()
        async with (
            listener() as (target, ends),
            chain(
                tmp_path, [tcp_route("logs", port, proxy_from=["10.0.0.0/8"])],
                [{"name": "logs", "tcp": f"127.0.0.1:{target}"}],
            ) as made,
        ):  # fmt: skip
            with contextlib.suppress(ConnectionResetError):
                near = await dial(port)
                near.send(encode(TOLD))
                await until(lambda: near.events == ["reset"])
            await until(lambda: made.relay.metrics.listener(f"127.0.0.1:{port}").faults == {"proxy-refused": 1})
            assert not ends

    run(main)


def test_the_ingress_takes_the_address_from_the_proxy_header(run, tmp_path):
    async def main() -> None:
        port = free_port()
        async with chain(
            tmp_path, [], [], ingress=[{"listen": f"127.0.0.1:{port}", "proxy_from": ["127.0.0.1/32"]}]
        ) as made:
            near = await dial(port)
            near.send(encode(TOLD) + b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
            await until(lambda: near.data.startswith(b"HTTP/1.1 421"))
            await until(lambda: made.relay_lines)
            assert made.relay_lines[0]["source"] == "192.0.2.7"
            near.reset()

    run(main)


async def test_nobody_fills_a_port_for_others(tmp_path, monkeypatch):
    """Neither a client behind the load balancer that says no ClientHello, nor a balancer that says no PROXY header."""
    monkeypatch.setattr("cloud_relay.ports.port.MAX_ARRIVALS_PER_SOURCE", 4)
    monkeypatch.setattr("cloud_relay.ports.port.MAX_UNTOLD_PER_BALANCER", 6)
    port, hello = free_port(), REAL
    async with (
        listener() as (target, ends),
        chain(
            tmp_path,
            [tcp_route("a", port, sni="otlp.example.com", proxy_from=["127.0.0.0/8"], networks=["192.0.2.0/24"])],
            [{"name": "a", "tcp": f"127.0.0.1:{target}"}],
        ) as made,
    ):  # fmt: skip
        metrics = made.relay.metrics.listener(f"127.0.0.1:{port}")
        greedy = []
        for _ in range(12):
            greedy.append(await dial(port))
            greedy[-1].send(encode(TOLD._replace(source="192.0.2.66")))
        await until(lambda: [one.events for one in greedy].count(["reset"]) == 8)
        good = await dial(port)
        good.send(encode(TOLD) + hello)
        await until(lambda: ends and ends[0].data == hello)
        silent = [await dial(port) for _ in range(10)]
        await until(lambda: [one.events for one in silent] == [["reset"]] * 4 + [[]] * 6)  # the oldest made way
        other = await dial(port)
        other.send(encode(TOLD) + hello)
        await until(lambda: len(ends) == 2 and ends[1].data == hello)
        assert metrics.refused == 8 + 4 + 1
        assert [one.events for one in greedy].count([]) == 4, "the greedy one lost its own only"
        for one in (*greedy, *silent, good, other):
            one.reset()
