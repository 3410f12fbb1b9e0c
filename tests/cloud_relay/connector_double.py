"""A connector for the relay's tests: a real tunnel, and an answer to every push without any target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.http.push_head import PushHead, decode_push, encode_answer
from shared.pki.tls import KeyPair, tunnel_client_context
from shared.probe import MARK, Verdict, decode_question
from shared.probe import encode_answer as encode_answer_to_probe
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket_client import Endpoint, open_websocket
from tests.support.development import Pki


@dataclass
class ConnectorDouble:
    """Answers each push with `status` once its body is whole, and echoes the body. While `is_holding` it waits.

    Each probe is answered by `verdict`.
    """

    status: int = 200
    verdict: Verdict = Verdict("", 0.0, 0.001)  # noqa: RUF009 - a tuple
    probes: list[str] = field(default_factory=list)
    is_holding: bool = False
    pushes: list[PushHead] = field(default_factory=list)
    closed: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[Stream] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    replace: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the relay asks for a new tunnel in this one's place."""

    # LinkHandler

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.ready.set()

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        if head.startswith(MARK):
            self.probes.append(decode_question(head))
            stream.answer(encode_answer_to_probe(self.verdict), end=True)
            return
        self.pushes.append(decode_push(head))
        stream.handler = _Echo(self, stream)
        stream.handler.on_data(body, end)

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None: ...

    def on_renew(self, link: Link, request: bytes) -> None: ...

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None: ...

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None: ...

    def on_hint(self, link: Link, within: float) -> None: ...

    def on_drain(self, link: Link, timeout: float) -> None: ...

    def on_replace(self, link: Link, timeout: float) -> None:
        self.replace.set()

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        if not self.closed.done():
            self.closed.set_result(code)

    def on_usable(self, link: Link) -> None:
        """Only a relay doubts its peers."""

    def on_room(self, link: Link) -> bool:
        """Only a relay opens streams."""
        return False

    def on_handler_error(self, link: Link, error: Exception) -> None:
        raise error

    def let_go(self) -> None:
        """Answer what was held."""
        self.is_holding = False
        for stream in self.held:
            stream.answer(encode_answer(self.status, 0, []), b"", end=True)
        self.held.clear()


class _Echo:
    """The StreamHandler of one push."""

    def __init__(self, double: ConnectorDouble, stream: Stream) -> None:
        self._double = double
        self._stream = stream
        self._body = b""

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None:
        self._body += data
        self._stream.consumed(len(data))
        if end and self._double.is_holding:
            self._double.held.append(self._stream)
        elif end:
            self._stream.answer(encode_answer(self._double.status, len(self._body), []), self._body, end=True)
        if end:
            self._double.arrived.set()

    def on_reset(self, wire_code: int, refused: bool) -> None: ...

    def on_writable(self) -> None: ...


@asynccontextmanager
async def attached(
    pki: Pki, port: int, targets: Mapping[str, str], certificate: KeyPair | None = None
) -> AsyncIterator[ConnectorDouble]:
    """A double whose tunnel is up; c1 of acme/walldorf unless `certificate` says otherwise."""
    loop = asyncio.get_running_loop()
    pair = certificate or pki.connector()
    double = ConnectorDouble()
    gaps = GapWatch(loop)
    hello = Hello(software="test", instance="double", targets=targets)
    link = Link(Role.CONNECTOR, double, hello, settings=Settings(), budget=MemoryBudget(), gaps=gaps, loop=loop)
    raw, _ = await loop.create_connection(_Paused, "127.0.0.1", port)
    context = tunnel_client_context(pki.ca, pair.certificate, pair.key)
    transport = await open_websocket(raw, context, ReadBuffers(), Endpoint("localhost", port), lambda _: link)
    link.start(transport)
    try:
        async with asyncio.timeout(5):
            await double.ready.wait()
        yield double
    finally:
        link.abort()
        async with asyncio.timeout(5):
            await double.closed
        gaps.stop()


class _Paused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
