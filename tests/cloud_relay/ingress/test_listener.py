"""The listener over real sockets, plain and TLS, on plain asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
import uvloop

from cloud_relay.handshake_turns import HandshakeTurns
from cloud_relay.health import RelayState
from cloud_relay.ingress.connection import SenderConnection
from cloud_relay.ingress.context import IngressSettings
from cloud_relay.ingress.listener import IngressListener
from shared.pki.tls import KeyPair, ingress_server_context
from shared.tunnel.endings import cut_off
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import parse_answers, post

Main = Callable[[], Awaitable[None]]
NAME = "push.example.com"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(main: Main) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_within(main()))

    return run


async def _within(work: Awaitable[None]) -> None:
    async with asyncio.timeout(20):
        await work


class Pki:
    def __init__(self, folder: Any) -> None:
        self.ca = trustme.CA()
        self.pairs = [self.pair(folder, name) for name in (NAME, "other.example.com")]
        self.client = ssl.create_default_context()
        self.ca.configure_trust(self.client)

    def pair(self, folder: Any, name: str) -> KeyPair:
        issued = self.ca.issue_cert(name)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(key))
        return KeyPair(certificate, key)

    def server(self) -> ssl.SSLContext:
        return ingress_server_context(self.pairs)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, pki: Pki) -> Pki | None:
    return pki if request.param == "tls" else None


@contextlib.asynccontextmanager
async def listening(tls: Pki | None = None, **options: Any) -> AsyncIterator[tuple[Relay, IngressListener]]:
    loop = asyncio.get_running_loop()
    relay = Relay(clock=loop, **options)
    relay.assert_all_closed = lambda: None  # type: ignore[method-assign] # the clock is real here
    listener = IngressListener(relay.ingress, relay.metrics, tls.server() if tls else None)
    await listener.listen("127.0.0.1", 0)
    assert listener.addresses[0][1] > 0
    try:
        yield relay, listener
    finally:
        listener.abort()
        await until(lambda: not listener.open_connections)
        assert relay.metrics.open == 0
        assert relay.in_flight == (0, 0, 0)
        assert relay.bugs == []


async def connect(listener: IngressListener, tls: Pki | None, name: str = NAME) -> tuple[Any, Any]:
    host, port = listener.addresses[0]
    if tls is None:
        return await asyncio.open_connection(host, port)
    return await asyncio.open_connection(host, port, ssl=tls.client, server_hostname=name)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds; bounded by the test's own time-out."""
    while not condition():
        await asyncio.sleep(0.002)


async def ended(reader: Any) -> bytes:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        return bytes(await reader.read())
    return b""


def test_pushes_over_one_connection(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            reader, writer = await connect(listener, tls)
            for n in range(3):
                writer.write(post(b"%d" % n * 2048))
                await until(lambda: relay.streams[n:] and relay.stream.ended)  # noqa: B023 - awaited at once
                assert relay.stream.body == b"%d" % n * 2048
                relay.stream.answer(200, b"ok")
                answer = parse_answers(await reader.readuntil(b"ok"))[0]
                assert (answer.status, answer.body) == (200, b"ok")
            headers = dict(relay.stream.head.headers)
            assert headers[b"X-Forwarded-For"] == b"127.0.0.1"
            assert headers[b"X-Forwarded-Proto"] == (b"https" if tls else b"http")
            assert relay.metrics.accepted == relay.metrics.open == 1
            writer.close()
            await until(lambda: relay.metrics.open == 0)

    run(main)


def test_the_certificate_is_chosen_by_name(run, pki):
    async def main() -> None:
        async with listening(pki) as (_, listener):
            for name in (NAME, "other.example.com"):
                _, writer = await connect(listener, pki, name)
                certificate = writer.get_extra_info("peercert")
                assert certificate["subjectAltName"] == (("DNS", name),)
                writer.close()

    run(main)


def test_durations_are_finer_than_the_loops_clock(run):
    async def main() -> None:
        async with listening() as (relay, listener):
            _, writer = await connect(listener, None)
            writer.write(post(b"x"))
            await until(lambda: relay.streams)
            time.sleep(0.0015)  # the loop is held up: its own clock may stand still meanwhile
            relay.stream.answer(204)
            (line,) = relay.access_log.lines
            assert line["total_ms"] >= line["beyond_ms"] >= 1.5
            writer.close()

    run(main)


def test_a_sender_that_hangs_up_cancels(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            _, writer = await connect(listener, tls)
            writer.write(post(b"x"))
            await until(lambda: relay.streams)
            writer.close()
            await until(lambda: relay.stream.was_reset)
            assert relay.stream.was_reset == (108, False)

    run(main)


def test_a_refusal_is_read_by_a_sender_that_is_still_sending(run, tls):
    async def main() -> None:
        async with listening(tls, max_body=1000) as (_, listener):
            reader, writer = await connect(listener, tls)
            writer.write(post(b"", content_length="3000000") + b"x" * 3_000_000)
            answer = parse_answers(await reader.readuntil(b"}"))[0]
            assert answer.status == 413
            writer.close()
            await until(lambda: not listener.open_connections)

    run(main)


def test_a_begun_answer_that_fails_never_looks_whole(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            reader, writer = await connect(listener, tls)
            writer.write(post(b"x", version="1.0"))
            await until(lambda: relay.streams)
            relay.stream.answer(200, b"half", end=False)
            await reader.readuntil(b"half")
            relay.stream.fail("target-lost")
            if tls is None:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:  # asyncio hides a TLS truncation from its readers
                assert await ended(reader) == b""
            writer.close()

    run(main)


ASK = b"GET /metrics HTTP/1.1\r\nHost: push.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_an_upgrade_is_a_stream_both_ways_until_both_ends(run, tls):
    async def main() -> None:
        async with listening(tls, upgrades=True) as (relay, listener):
            reader, writer = await connect(listener, tls)
            writer.write(ASK + b"early")
            await until(lambda: relay.streams)
            relay.stream.answer(101, b"first", end=False, length=None)
            assert (await reader.readuntil(b"first")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            writer.write(b" and late")
            await until(lambda: relay.stream.body == b"early and late")
            relay.stream.data(b"x" * 300_000, end=True)
            assert await reader.read() == b"x" * 300_000
            writer.close()
            await until(lambda: not listener.open_connections)
            assert relay.stream.ended or relay.stream.was_reset == (108, False)
            assert relay.stream.ended or tls is not None
            assert "code" not in relay.access_log.lines[0]

    run(main)


def test_an_upgraded_stream_that_is_reset_never_looks_whole(run, tls):
    async def main() -> None:
        async with listening(tls, upgrades=True) as (relay, listener):
            reader, writer = await connect(listener, tls)
            writer.write(ASK)
            await until(lambda: relay.streams)
            relay.stream.answer(101, end=False, length=None)
            relay.stream.fail("tunnel-lost")
            await until(lambda: not listener.open_connections)
            if tls is None:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:  # asyncio hides a TLS truncation from its readers; tests of shared.tunnel.duplex look closer
                assert await ended(reader) == b""
            writer.close()

    run(main)


def test_an_upgraded_sender_that_is_cut_off_resets_the_stream(run, tls):
    async def main() -> None:
        async with listening(tls, upgrades=True) as (relay, listener):
            _, writer = await connect(listener, tls)
            writer.write(ASK)
            await until(lambda: relay.streams)
            relay.stream.answer(101, end=False, length=None)
            writer.transport.abort() if tls else cut_off(writer.transport)
            await until(lambda: relay.stream.is_over)
            assert relay.stream.was_reset == (108, False)
            await until(lambda: not listener.open_connections)
            assert relay.access_log.lines[0]["code"] == "sender-gone"

    run(main)


def test_http10_answers_end_with_the_connection(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            reader, writer = await connect(listener, tls)
            writer.write(post(b"x", version="1.0"))
            await until(lambda: relay.streams)
            relay.stream.answer(200, b"half", end=False)
            relay.stream.data(b" whole", end=True)
            assert (await reader.read()).endswith(b"half whole")
            writer.close()

    run(main)


def test_back_pressure_both_ways(run, tls):
    async def main() -> None:
        async with listening(tls, max_body=1 << 30) as (relay, listener):
            relay.registry.sessions[0].link.new_streams_have_room = False
            reader, writer = await connect(listener, tls)
            # Or else the kernel may take all that is not read: its receive buffers grow to 32 MiB here and there.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            size = 30 << 20
            sending = asyncio.get_running_loop().create_task(_send(writer, post(b"", content_length=str(size)), size))
            await until(lambda: relay.streams)
            await asyncio.sleep(0.1)
            assert len(relay.stream.body) < 2 << 20
            relay.stream.make_room()
            await until(lambda: relay.stream.ended)
            await sending
            relay.stream.answer(200, b"a" * 1000, end=False)
            for _ in range(300):
                relay.stream.data(b"b" * 65536)
                await asyncio.sleep(0)
            assert relay.stream.handed - relay.stream.taken > 1 << 20
            stop = asyncio.get_running_loop().create_task(reader.readuntil(b"\r\n0\r\n\r\n"))
            await asyncio.sleep(0.01)
            relay.stream.data(b"", end=True)
            with contextlib.suppress(asyncio.LimitOverrunError):
                await stop
            while relay.stream.taken < relay.stream.handed:
                await reader.read(1 << 20)
            writer.close()

    run(main)


async def _send(writer: Any, head: bytes, size: int) -> None:
    writer.write(head)
    for _ in range(size >> 16):
        writer.write(bytes(65536))
        await writer.drain()


@pytest.mark.parametrize(
    "settings", [IngressSettings(max_connections=2), IngressSettings(max_connections_per_source=2)]
)
def test_caps_on_connections(run, tls, settings):
    async def main() -> None:
        async with listening(tls, settings=settings) as (relay, listener):
            kept = [await connect(listener, tls) for _ in range(2)]
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                reader, writer = await connect(listener, tls)
                assert await ended(reader) == b""
                writer.close()
            assert relay.metrics.refused == 1
            for _, writer in kept:
                writer.close()
            await until(lambda: not listener.open_connections)
            _, writer = await connect(listener, tls)
            await until(lambda: listener.open_connections)
            writer.close()

    run(main)


def test_when_connections_run_short_the_idlest_makes_way(run, tls, monkeypatch):
    monkeypatch.setattr("cloud_relay.guests.PATIENCE", 0.0)

    async def main() -> None:
        async with listening(tls, settings=IngressSettings(max_connections=3)) as (relay, listener):
            silent = socket.create_connection(listener.addresses[0])
            await until(lambda: listener.open_connections == 1)
            idle, idle_writer = await connect(listener, tls)
            busy, busy_writer = await connect(listener, tls)
            busy_writer.write(post(b"x"))
            await until(lambda: relay.streams)
            _, first_writer = await connect(listener, tls)
            if tls is not None:  # one that has not even begun its handshake is the idlest
                silent.settimeout(0.0)
                await until(lambda: is_closed(silent))
            _, second_writer = await connect(listener, tls)
            assert await ended(idle) == b""
            await until(lambda: listener.open_connections == 3)
            assert relay.metrics.refused == 2
            relay.stream.answer(200)
            assert (await busy.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            for writer in (idle_writer, busy_writer, first_writer, second_writer):
                writer.close()
            silent.close()
            await until(lambda: not listener.open_connections)

    run(main)


def test_one_that_waits_for_its_turn_makes_no_way(run, pki, monkeypatch):
    """It has said hello, and it is us who have it wait."""
    joined: list[str] = []
    monkeypatch.setattr("cloud_relay.guests.PATIENCE", 0.0)
    monkeypatch.setattr(HandshakeTurns, "join", lambda turns, source, waiter: joined.append(source))

    async def main() -> None:
        async with listening(pki, settings=IngressSettings(max_connections=1)) as (_, listener):
            first = socket.create_connection(listener.addresses[0])
            first.send(b"\x16")
            await until(lambda: joined)
            second = socket.create_connection(listener.addresses[0])
            for sock in (first, second):
                sock.settimeout(0.0)
            await until(lambda: is_closed(second))
            assert not is_closed(first)
            assert listener.open_connections == 1
            first.close()
            second.close()
        joined.clear()

    run(main)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has ended it."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_who_never_says_hello_is_let_go(run, pki, monkeypatch):
    monkeypatch.setattr("cloud_relay.ingress.listener.HANDSHAKE_TIMEOUT", 0.05)

    async def main() -> None:
        async with listening(pki) as (relay, listener):
            silent = [await connect(listener, None) for _ in range(3)]
            for reader, writer in silent:
                assert await ended(reader) == b""
                writer.close()
            assert relay.metrics.tls_failed == 3
            assert listener.open_connections == 0
            _, writer = await connect(listener, pki)
            writer.close()

    run(main)


def test_handshakes_take_turns_with_pushes(run, pki):
    """While hundreds of handshakes wait, a connection that is there already is served between any two of them."""

    async def main() -> None:
        async with listening(pki) as (relay, listener):
            _, kept = await connect(listener, pki)
            handshakes = relay.ingress.handshakes
            begun: list[str] = []
            for source in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "198.51.100.1"):
                waiter = SimpleNamespace(wants_turn=True, take_turn=partial(begun.append, source))
                handshakes.join(source, cast(Any, waiter))
            assert begun == []
            kept.write(post(b"x"))
            await until(lambda: relay.streams)
            await until(lambda: len(begun) == 4)
            assert begun == ["192.0.2.1", "198.51.100.1", "192.0.2.2", "192.0.2.1"]
            assert repr(handshakes) == "<HandshakeTurns <Turns 0 waiting in 0 groups>>"
            kept.close()

    run(main)


def test_aborting_ends_those_who_wait_for_their_turn(run, pki):
    async def main() -> None:
        async with listening(pki) as (relay, listener):
            _, silent = await connect(listener, None)
            _, greeting = await connect(listener, None)
            greeting.write(b"\x16\x03\x01")
            await until(lambda: listener.open_connections == 2)
            listener.abort()
            assert listener.open_connections == 0
            await asyncio.sleep(0.05)
            assert relay.metrics.open == 0
            silent.close()
            greeting.close()

    run(main)


def test_what_is_no_tls_is_counted_and_forgotten(run, pki):
    async def main() -> None:
        async with listening(pki) as (relay, listener):
            reader, writer = await connect(listener, None)
            writer.write(post(b"x"))
            await ended(reader)
            writer.close()
            _, gone = await connect(listener, None)
            gone.close()
            await until(lambda: relay.metrics.tls_failed == 2)
            assert relay.streams == []

    run(main)


class Exhausted:
    """A listening socket of a process that has no descriptor left, the first time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.failures = 1

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self.sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


def test_without_descriptors_it_waits_a_moment(run, monkeypatch):
    monkeypatch.setattr("cloud_relay.ports.acceptor._PAUSE", 0.01)

    async def main() -> None:
        async with listening() as (_, listener):
            acceptor = listener._acceptor
            assert acceptor is not None
            loop, real = asyncio.get_running_loop(), acceptor._sockets[0]
            exhausted = Exhausted(real)
            loop.remove_reader(real)
            acceptor._sockets[0] = cast(Any, exhausted)
            loop.add_reader(real.fileno(), acceptor._accept, cast(Any, exhausted))
            _, writer = await connect(listener, None)
            await until(lambda: listener.open_connections)
            assert exhausted.failures == 0
            writer.close()

    run(main)


def test_no_delay_and_no_cycles(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            _, writer = await connect(listener, tls)
            await until(lambda: listener._connections)
            (connection,) = listener._connections
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.write(post(b"x"))
            await until(lambda: relay.streams)
            gc.collect()
            gc.disable()
            try:
                writer.close()
                del connection
                await until(lambda: not listener.open_connections)
                relay.stream.handler = None
                await asyncio.sleep(0.05)
                assert not [thing for thing in gc.get_objects() if type(thing) is SenderConnection]
            finally:
                gc.enable()

    run(main)


def test_closing_with_grace(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            idle, of_idle = await connect(listener, tls)
            reader, writer = await connect(listener, tls)
            writer.write(post(b"x", connection="close"))
            await until(lambda: relay.streams)
            address = listener.addresses[0]
            closing = asyncio.get_running_loop().create_task(listener.close(10.0))
            await until(lambda: listener.open_connections == 1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            relay.stream.answer(200, b"done")
            assert (await reader.read()).endswith(b"done")
            assert await ended(idle) == b""
            writer.close()
            of_idle.close()
            await closing

    run(main)


def test_grace_is_bounded(run, tls):
    async def main() -> None:
        async with listening(tls) as (relay, listener):
            _, writer = await connect(listener, tls)
            writer.write(post(b"x"))
            await until(lambda: relay.streams)
            await listener.close(0.05)
            await until(lambda: not listener.open_connections)
            assert relay.stream.was_reset
            writer.close()

    run(main)


def test_past_the_grace_a_push_is_answered_and_a_begun_answer_is_cut_off(run, tls, monkeypatch):
    monkeypatch.setattr("cloud_relay.ingress.listener.LAST_WORDS", 0.2)

    async def main() -> None:
        async with listening(tls) as (relay, listener):
            waiting, of_waiting = await connect(listener, tls)
            sending, of_sending = await connect(listener, tls)
            begun, of_begun = await connect(listener, tls)
            of_waiting.write(post(b"x"))
            of_sending.write(post(b"", content_length="100000") + b"x")
            await until(lambda: len(relay.streams) == 2)
            of_begun.write(post(b"x"))
            await until(lambda: len(relay.streams) == 3)
            relay.stream.answer(200, b"half", end=False, length=8)
            await begun.readuntil(b"half")
            relay.ingress.state = RelayState.DRAINING
            await listener.close(0.05)
            for reader, writer in ((waiting, of_waiting), (sending, of_sending)):
                (answer,) = parse_answers(await reader.readuntil(b"}"))
                assert (answer.status, answer.headers["qanat-error"]) == (503, "starting")
                assert answer.headers["connection"] == "close"
                assert "retry-after" in answer.headers
                writer.close()
            assert await ended(begun) == b""
            of_begun.close()
            assert [stream.was_reset is not None for stream in relay.streams] == [True] * 3

    run(main)


def test_many_connections_at_once(run, tls):
    async def push(relay: Relay, listener: IngressListener) -> int:
        reader, writer = await connect(listener, tls)
        writer.write(post(b"x"))
        line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    async def main() -> None:
        async with listening(tls, max_in_flight=0) as (relay, listener):
            pushes = [asyncio.get_running_loop().create_task(push(relay, listener)) for _ in range(100)]
            for n in range(100):
                await until(lambda: relay.streams[n:])  # noqa: B023 - awaited at once
                relay.streams[n].answer(204)
            assert await asyncio.gather(*pushes) == [204] * 100

    run(main)
