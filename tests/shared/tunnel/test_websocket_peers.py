"""Peers that are no connector and no relay of ours: raw bytes over TLS, at each step of the handshake and after it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import cast

import pytest
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Close, Frame
from websockets.utils import accept_key

from shared.tunnel import tls, websocket
from shared.tunnel.transport import MAX_MESSAGE
from shared.tunnel.websocket_client import BadHandshake, HandshakeRefused, TlsFailed
from shared.tunnel.websocket_frames import FrameError
from tests.support.transports import OpenAcceptor, Recorder, authority, dial, tls_contexts, websocket_server

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: qanat.v1\r\n\r\n"
)


class RawClient:
    """A client that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> RawClient:
        context = tls_contexts()[1]
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))

    async def upgrade(self) -> None:
        self.writer.write(UPGRADE)
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.writer.write(Frame(opcode, payload, fin).serialize(mask=True))  # type: ignore[arg-type]  # tests send odd ones

    async def read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 0xF, await self.reader.readexactly(size)

    async def read_close(self) -> Close:
        opcode, payload = await self.read_frame()
        assert opcode == CLOSE
        assert await self.reader.read() == b""
        return Close.parse(payload)


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[OpenAcceptor, RawClient]]:
    acceptor = OpenAcceptor()
    async with websocket_server(acceptor) as port:
        client = await RawClient.connect(port)
        try:
            yield acceptor, client
        finally:
            client.writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await client.writer.wait_closed()


HANDSHAKES = {
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a push": b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "a browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "no key": UPGRADE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    "two keys": UPGRADE.replace(b"Sec-WebSocket-Version", b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version"),
    "HTTP/1.0": UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a frame too early": UPGRADE + b"\x82\x80abcd",
    "a second request": UPGRADE + UPGRADE,
    "too long a line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    "too long a head": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000,
    "bare LF": UPGRADE.replace(b"\r\n", b"\n") + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_bad_request_is_answered_and_closed(name):
    async with served() as (acceptor, client):
        client.writer.write(HANDSHAKES[name])
        answer = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert [code for code, _ in acceptor.refusals] == ["not-a-websocket"]
        client.writer.close()
        async with asyncio.timeout(5):
            while not acceptor.failures:
                await asyncio.sleep(0.01)
        assert acceptor.requests == []


async def test_a_wrong_subprotocol_is_named_after_admission():
    for wrong in (b"qanat.v9", b"chat, mqtt"):
        async with served() as (acceptor, client):
            client.writer.write(UPGRADE.replace(b"qanat.v1", wrong))
            assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")
            assert [code for code, _ in acceptor.refusals] == ["wrong-subprotocol"]
            assert len(acceptor.requests) == 1


async def test_the_acceptor_sees_path_certificate_and_peer():
    async with served() as (acceptor, client):
        client.writer.write(UPGRADE.replace(b"GET /", b"GET /tunnel?x=1"))
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        request = acceptor.requests[0]
        assert request.path == "/tunnel?x=1"
        assert request.certificate is not None
        assert request.peer.startswith("127.0.0.1:")


async def test_the_request_may_come_byte_by_byte():
    async with served() as (_, client):
        for byte in UPGRADE:
            client.writer.write(bytes((byte,)))
            await client.writer.drain()
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert b"permessage" not in UPGRADE


FRAMES = {
    "text": (lambda client: client.frame(TEXT, b"hello"), 1003),
    "first fragment": (lambda client: client.frame(BINARY, b"a", fin=False), 1003),
    "continuation": (lambda client: client.frame(CONT, b"a"), 1003),
    "oversized": (lambda client: client.frame(BINARY, bytes(MAX_MESSAGE + 1)), 1009),
    "unmasked": (lambda client: client.writer.write(Frame(BINARY, b"x").serialize(mask=False)), 1002),
    "RSV1": (lambda client: client.writer.write(b"\xc2\x81abcdx"), 1002),
    "long control": (lambda client: client.writer.write(b"\x89\xfe\x00\x7eabcd" + bytes(126)), 1002),
    "one-byte close": (lambda client: client.frame(CLOSE, b"\x03"), 1002),
    "close code 1005": (lambda client: client.frame(CLOSE, b"\x03\xed"), 1002),
    "close reason not UTF-8": (lambda client: client.frame(CLOSE, b"\x03\xe8\xff\xff"), 1002),
    "ping flood": (lambda client: [client.frame(PONG) for _ in range(websocket.CONTROL_FRAMES_PER_SECOND + 1)], 1008),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_bad_frame_closes_with_its_code(name):
    send, code = FRAMES[name]
    async with served() as (acceptor, client):
        await client.upgrade()
        recorder = await acceptor.accepted.get()
        client.frame(BINARY, b"good")
        send(client)
        close = await client.read_close()
        assert close.code == code
        assert close.reason
        assert recorder.messages == [b"good"]
        client.writer.close()
        closed = await recorder.until_closed()
        assert closed[0] is None
        assert closed[2] is not None
        assert recorder.late == []


async def test_pings_are_answered():
    async with served() as (_, client):
        await client.upgrade()
        client.frame(PING, b"are you there")
        assert await client.read_frame() == (PONG, b"are you there")


@pytest.mark.parametrize("ending", ["eof", "close_notify", "rst", "inside a frame"])
async def test_an_end_without_a_close_message_is_a_loss(ending):
    async with served() as (acceptor, client):
        await client.upgrade()
        recorder = await acceptor.accepted.get()
        transport = client.writer.transport
        if ending == "inside a frame":
            client.writer.write(Frame(BINARY, b"x" * 1000).serialize(mask=True)[:500])
            await asyncio.sleep(0.05)
        if ending == "close_notify":
            client.writer.close()
        elif ending == "eof":
            transport.get_extra_info("socket").shutdown(socket.SHUT_WR)  # TCP ends, TLS does not
        else:
            transport.abort()
        code, reason, _ = await recorder.until_closed()
        assert (code, reason) == (None, "")
        assert recorder.messages == []


async def test_what_an_aborted_tunnel_still_held_is_not_sent_later():
    """By a FIN the kernel would go on for minutes to deliver pushes that were given up."""
    async with served() as (acceptor, client):
        await client.upgrade()
        recorder = await acceptor.accepted.get()
        reading = cast(asyncio.ReadTransport, client.writer.transport)
        reading.pause_reading()
        for _ in range(64):
            recorder.transport.send(b"x" * MAX_MESSAGE)
        recorder.transport.abort()
        await recorder.until_closed()
        reading.resume_reading()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_a_client_that_never_answers_the_close_is_cut_off(monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.1)
    async with served() as (acceptor, client):
        await client.upgrade()
        recorder = await acceptor.accepted.get()
        recorder.transport.close(4325, "going-away")
        assert await client.read_frame() == (CLOSE, struct.pack("!H", 4325) + b"going-away")
        assert (await recorder.until_closed())[0] is None


async def test_a_silent_client_is_cut_off():
    acceptor = OpenAcceptor()
    async with websocket_server(acceptor, time_limit=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        assert len(acceptor.failures) == 1


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", bytes(300)]
)
async def test_what_is_no_tls_ends_with_an_alert_or_nothing(garbage):
    acceptor = OpenAcceptor()
    async with websocket_server(acceptor) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        assert len(await reader.read()) <= 7
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            while not acceptor.failures:
                await asyncio.sleep(0.01)
        assert isinstance(acceptor.failures[0], ssl.SSLError)


# The connector's side.


@contextlib.asynccontextmanager
async def scripted(answer: bytes, *, then_close: bool = True) -> AsyncIterator[int]:
    """A TLS server that reads a request and answers `answer`, `{accept}` filled in."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
            writer.write(answer.replace(b"{accept}", accept_key(key.decode()).encode()))
            if not then_close:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls_contexts()[0])
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.01)


SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: qanat.v1\r\n\r\n"
)

BAD_ANSWERS = {
    "garbage": b"\x00" * 100,
    "nothing": b"",
    "half a head": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web",
    "wrong accept": SWITCHING.replace(b"{accept}", b"AAAA"),
    "no subprotocol": SWITCHING.replace(b"Sec-WebSocket-Protocol: qanat.v1\r\n", b""),
    "another subprotocol": SWITCHING.replace(b"qanat.v1", b"qanat.v2"),
    "an extension": SWITCHING.replace(b"Upgrade: websocket", b"Sec-WebSocket-Extensions: x\r\nUpgrade: websocket"),
    "endless head": b"HTTP/1.1 101 Switching Protocols\r\n" + b"A: b\r\n" * 9000,
    "endless body": b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * 100_000,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_bad_answer_is_no_handshake(name):
    async with scripted(BAD_ANSWERS[name]) as port:
        with pytest.raises(BadHandshake):
            await dial(port)


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\nQanat-Error: certificate-required", b"Connection: close"])
async def test_a_refusal_is_handed_on(framing):
    answer = b"HTTP/1.1 401 Unauthorized\r\n" + framing + b'\r\n\r\n{"a": 12}'
    async with scripted(answer) as port:
        with pytest.raises(HandshakeRefused) as caught:
            await dial(port)
    assert (caught.value.status, caught.value.body) == (401, b'{"a": 12}')


async def test_messages_that_come_with_the_answer_are_not_lost():
    async with scripted(SWITCHING + Frame(BINARY, b"HELLO").serialize(mask=False), then_close=False) as port:
        recorder = await dial(port)
        await recorder.until(lambda: recorder.messages == [b"HELLO"])
        recorder.transport.abort()
        await recorder.until_closed()


async def test_a_masked_frame_from_the_relay_is_refused():
    async with scripted(SWITCHING + Frame(BINARY, b"HELLO").serialize(mask=True)) as port:
        recorder = await dial(port)
        assert isinstance((await recorder.until_closed())[2], FrameError)


async def test_a_relay_that_never_answers(monkeypatch):
    async with scripted(b"", then_close=False) as port:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await dial(port)


async def test_a_relay_with_another_name_or_another_ca():
    strangers = ssl.create_default_context()
    renamed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("elsewhere.test").configure_cert(renamed)
    async with scripted(SWITCHING) as port:
        with pytest.raises(TlsFailed) as caught:
            await dial(port, strangers)
        assert isinstance(caught.value.error, ssl.SSLCertVerificationError)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=renamed)
    with pytest.raises(TlsFailed, match="Hostname mismatch"):
        await dial(server.sockets[0].getsockname()[1])
    server.close()


async def test_a_foreign_client_certificate_is_told_by_an_alert():
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    trustme.CA().issue_cert("client.test").configure_cert(context)
    acceptor = OpenAcceptor()
    async with websocket_server(acceptor) as port:
        with pytest.raises(TlsFailed, match=r"unknown ca|decrypt error|bad certificate"):
            await dial(port, context)
        assert isinstance(acceptor.failures[0], ssl.SSLError)


async def test_close_timeouts_are_what_the_design_says():
    assert (websocket.HANDSHAKE_TIMEOUT, websocket.CLOSE_TIMEOUT) == (5.0, 3.0)
    assert tls.LINGER < websocket.CLOSE_TIMEOUT
    assert isinstance(Recorder().messages, list)
