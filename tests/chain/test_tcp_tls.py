"""TLS ended at the relay, client certificates as the senders' credential, through the whole chain."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cloud_relay.handshake_turns import HandshakeTurns
from cloud_relay.loop_turns import Waiter
from tests.support.chain import Chain, chain, tcp_route
from tests.support.development import Pki
from tests.support.ends import EdgeEnd, dial, until
from tests.support.hellos import REAL
from tests.support.ports import free_port
from tests.support.tls_ends import TlsClient, client_pair, files, listener, read_all

NAME = "logs.example.com"
PLANT = "plant-1.example.com"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def runs(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return runs


@asynccontextmanager
async def tls_world(folder: Path, **route: Any) -> AsyncIterator[tuple[Chain, int, list[EdgeEnd]]]:
    port = free_port()
    (folder / "edge").mkdir()
    pair = Pki(folder / "edge")
    tls = files(pair.server(NAME)) | route.pop("tls", {})
    if tls.get("client_ca") == "own":
        tls["client_ca"] = str(pair.ca)
    senders = [{"name": "plant", "certificate": {"san": "dns:plant-1.example.com"}}]
    async with (
        listener() as (target, ends),
        chain(folder, [tcp_route("logs", port, tls=tls, **route)], [{"name": "logs", "tcp": f"127.0.0.1:{target}"}],
              senders=senders) as made,
    ):  # fmt: skip
        made.pki = pair
        yield made, port, ends


def test_the_end_of_tls_is_passed_on_and_its_lack_is_a_reset(run, tmp_path):
    async def main() -> None:
        async with tls_world(tmp_path) as (made, port, ends):
            good = await TlsClient(port, NAME, made.pki.ca).connect()
            await good.call(lambda sock: sock.sendall(b"q" * 200_000))
            await until(lambda: ends and len(ends[0].data) == 200_000)
            ends[0].send(b"a" * 300_000)
            ends[0].end()  # the target is done; the sender hears of it only when it is done too
            await asyncio.sleep(0.05)
            await good.call(lambda sock: sock.sendall(b"more"))
            await until(lambda: len(ends[0].data) == 200_004)
            assert "eof" not in ends[0].events

            def finish(sock: ssl.SSLSocket) -> bytes:
                data = b""
                while len(data) < 300_000:
                    data += sock.recv(65536)
                sock.unwrap().close()  # close_notify, and waits for the relay's
                return data

            assert await good.call(finish) == b"a" * 300_000
            await until(lambda: ends[0].events[-2:] == ["eof", "closed"])

            cut = await TlsClient(port, NAME, made.pki.ca).connect()
            await cut.call(lambda sock: sock.sendall(b"half a li"))
            await until(lambda: len(ends) == 2 and ends[1].data == b"half a li")
            assert cut.sock is not None
            cut.sock.shutdown(socket.SHUT_WR)  # a FIN without close_notify
            await until(lambda: ends[1].events[-1:] == ["reset"])
            assert "eof" not in ends[1].events
            cut.sock.close()
            assert [line.get("code") for line in made.relay_lines] == [None, "sender-reset"]

    run(main)


def test_a_target_that_half_closes_last(run, tmp_path):
    """TLS senders that say close_notify may still read what the target answers."""

    async def main() -> None:
        async with tls_world(tmp_path) as (made, port, ends):
            client = await TlsClient(port, NAME, made.pki.ca).connect()

            def ask(sock: ssl.SSLSocket) -> None:
                sock.sendall(b"question")
                sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    sock.unwrap()
                sock.settimeout(8)

            await client.call(ask)
            await until(lambda: ends and "eof" in ends[0].events)
            ends[0].send(b"answer")
            ends[0].end()
            await until(lambda: made.relay_lines)
            assert made.relay_lines[0]["bytes_out"] == 6
            assert "code" not in made.relay_lines[0]
            assert client.sock is not None
            client.sock.close()

    run(main)


def test_a_reset_of_the_target_shows_no_close_notify(run, tmp_path):
    async def main() -> None:
        async with tls_world(tmp_path) as (made, port, ends):
            client = await TlsClient(port, NAME, made.pki.ca).connect()
            await client.call(lambda sock: sock.sendall(b"x"))
            await until(lambda: ends and ends[0].data)
            ends[0].reset()
            with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
                await client.call(read_all)
            assert client.sock is not None
            client.sock.close()

    run(main)


def test_client_certificates_are_the_senders_credential(run, tmp_path):
    async def main() -> None:
        async with tls_world(tmp_path, tls={"client_ca": "own"}, senders=["plant"], networks=[]) as (made, port, ends):
            pki, name = made.pki, NAME
            known, other = client_pair(pki, PLANT), client_pair(pki, "plant-2.example.com")
            foreign = client_pair(Pki(tmp_path), PLANT)
            good = await TlsClient(port, name, pki.ca, known).connect()
            await good.call(lambda sock: sock.sendall(b"x"))
            await until(lambda: ends and ends[0].data == b"x")
            for pair, code in (
                (None, "sender-certificate-required"),
                (other, "sender-certificate-unknown"),
                (foreign, "sender-tls-failed"),
            ):
                with pytest.raises((ConnectionError, ssl.SSLError)):
                    await TlsClient(port, name, pki.ca, pair).read_nothing()
                await until(lambda: code in [line.get("code") for line in made.relay_lines])  # noqa: B023 - at once
            assert len(ends) == 1
            made.relay.senders.set_disabled("acme", "plant", is_disabled=True)
            await until(lambda: ends[0].events[-1:] == ["reset"])
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await TlsClient(port, name, pki.ca, known).read_nothing()
            await until(lambda: made.relay_lines[-1].get("code") == "sender-disabled")
            assert good.sock is not None
            good.sock.close()
            await until(lambda: len(made.relay_lines) == 5)
            assert made.relay_lines[3]["sender"] == "plant"

    run(main)


@asynccontextmanager
async def certified_world(folder: Path, bundle: Path) -> AsyncIterator[tuple[Chain, int, list[EdgeEnd]]]:
    """A route for the sender `plant`, whose certificate comes from a CA of `bundle`."""
    tls = {"client_ca": str(bundle)}
    async with tls_world(folder, tls=tls, senders=["plant"], networks=[]) as (made, port, ends):
        yield made, port, ends


async def talks(client: TlsClient, ends: list[EdgeEnd]) -> EdgeEnd:
    """Connect, and the target's end of it."""
    known = len(ends)
    await client.connect()
    await client.call(lambda sock: sock.sendall(b"x"))
    await until(lambda: len(ends) > known and ends[known].data == b"x")
    return ends[known]


def test_an_open_connection_ends_with_its_certificate(run, tmp_path):
    async def main() -> None:
        (tmp_path / "senders").mkdir()
        pki = Pki(tmp_path / "senders")
        async with certified_world(tmp_path, pki.ca) as (made, port, ends):
            last_second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
            short = TlsClient(port, NAME, made.pki.ca, client_pair(pki, PLANT, last_second))
            end = await talks(short, ends)
            long = TlsClient(port, NAME, made.pki.ca, client_pair(pki, PLANT))
            other = await talks(long, ends)
            await until(lambda: end.events[-1:] == ["reset"], 4)
            late = datetime.now(UTC) - last_second
            assert timedelta() <= late < timedelta(seconds=1.5)
            with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
                await short.call(read_all)
            await until(lambda: made.relay_lines)
            assert [line["code"] for line in made.relay_lines] == ["sender-certificate-expired"]
            assert other.events == ["data"]
            close(short, long)

    run(main)


def test_what_a_reload_takes_away_ends(run, tmp_path):
    """The CA of a certificate, its pin, its sender: each ends the connection that has it, and no other."""

    async def main() -> None:
        for folder in ("old", "new"):
            (tmp_path / folder).mkdir()
        old, new, bundle = Pki(tmp_path / "old"), Pki(tmp_path / "new"), tmp_path / "bundle.pem"
        bundle.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
        async with certified_world(tmp_path, bundle) as (made, port, ends):
            clients = [TlsClient(port, NAME, made.pki.ca, client_pair(pki, PLANT)) for pki in (old, new)]
            by_old, by_new = [await talks(client, ends) for client in clients]
            assert (await made.reload_relay()).is_taken
            assert by_old.events == by_new.events == ["data"]  # nothing has changed
            bundle.write_bytes(new.ca.read_bytes())
            assert (await made.reload_relay()).is_taken
            await until(lambda: by_old.events[-1:] == ["reset"], 1)
            assert by_new.events == ["data"]
            senders = made.relay_document["tenants"]["acme"]["senders"]
            senders[0]["certificate"] = {"san": "dns:plant-2.example.com"}
            assert (await made.reload_relay()).is_taken
            await until(lambda: by_new.events[-1:] == ["reset"], 1)
            senders[0]["certificate"] = {"san": f"dns:{PLANT}"}
            assert (await made.reload_relay()).is_taken
            again = TlsClient(port, NAME, made.pki.ca, client_pair(new, PLANT))
            last = await talks(again, ends)
            senders.append({"name": "other", "certificate": {"san": "dns:other.example.com"}})
            made.relay_document["tenants"]["acme"]["tcp_routes"][0]["senders"] = ["other"]
            del senders[0]
            assert (await made.reload_relay()).is_taken
            await until(lambda: last.events[-1:] == ["reset"], 1)
            await until(lambda: len(made.relay_lines) == 3)
            assert {line["code"] for line in made.relay_lines} == {"sender-certificate-unknown"}
            close(*clients, again)

    run(main)


def close(*clients: TlsClient) -> None:
    for client in clients:
        assert client.sock is not None
        client.sock.close()


def test_a_slow_handshake_takes_nothing_of_the_time_to_hold(run, tmp_path):
    """`hold` begins when the connection is ready."""

    async def main() -> None:
        async with tls_world(tmp_path, hold=0.5) as (made, port, _):
            await made.connector.tunnels.close()
            await until(lambda: not made.relay.registry.sessions())
            client = TlsClient(port, NAME, made.pki.ca)

            def dawdle() -> ssl.SSLSocket:
                raw = socket.create_connection(("127.0.0.1", port), timeout=8)
                time.sleep(0.8)
                return client.context.wrap_socket(raw, server_hostname=NAME)

            client.sock = await asyncio.to_thread(dawdle)
            await until(lambda: made.relay_lines)
            (line,) = made.relay_lines
            assert line["code"] == "no-connector"
            assert line["waited_ms"] >= 490
            assert line["total_ms"] >= 1290
            close(client)

    run(main)


def test_a_handshake_that_never_ends_is_cut_off(run, tmp_path, monkeypatch):
    monkeypatch.setattr("cloud_relay.tcp.push.HANDSHAKE_TIMEOUT", 0.3)

    async def main() -> None:
        async with tls_world(tmp_path) as (made, port, ends):
            for said in (b"", REAL[:40]):
                near = await dial(port)
                if said:
                    near.send(said)
                await until(lambda: near.events == ["reset"])  # noqa: B023 - awaited at once
            assert [line["code"] for line in made.relay_lines] == ["sender-tls-failed"] * 2
            assert not made.doors.tcp.connections
            assert not ends

    run(main)


def test_a_handshake_begins_when_its_first_bytes_are_here_and_its_turn_has_come(run, tmp_path, monkeypatch):
    joined: list[tuple[str, Waiter]] = []
    join = HandshakeTurns.join

    async def main() -> None:
        async with tls_world(tmp_path) as (made, port, _):

            def note(turns: HandshakeTurns, source: str, waiter: Waiter) -> None:
                if turns is made.doors.tcp.ingress.handshakes:
                    joined.append((source, waiter))
                else:  # a connector's
                    join(turns, source, waiter)

            monkeypatch.setattr(HandshakeTurns, "join", note)
            connections = made.doors.tcp.connections
            near = await dial(port)
            await until(lambda: len(connections) == 1)
            (push,) = connections
            assert joined == []
            near.send(REAL[:40])
            await until(lambda: joined)
            ((source, waiter),) = joined
            assert source == "127.0.0.1"
            assert push._welcome.edge is None
            waiter.take_turn()
            await until(lambda: push._welcome.edge is not None)
            late = await dial(port)
            late.send(REAL[:40])
            await until(lambda: len(joined) == 2)
            silent = await dial(port)
            await until(lambda: len(connections) == 3)
            made.doors.tcp.abort()
            for end in (near, late, silent):
                await until(lambda: end.events == ["reset"])  # noqa: B023 - awaited at once
            assert not joined[1][1].wants_turn
            assert not connections

    run(main)
