"""Fakes that record, and an event loop whose time is virtual: an hour passes as fast as nothing happens in it."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from connector_agent.access import AccessRules, Rule
from connector_agent.dispatch import Dispatcher
from connector_agent.headers_policy import HeaderPolicy
from connector_agent.metrics import ConnectorMetrics
from connector_agent.targets import DEFAULT_TIMEOUTS, Target, TargetTable, Timeouts
from connector_agent.upstream.connect import Endpoint
from connector_agent.upstream.connection import UpstreamConnection
from connector_agent.upstream.pool import MAX_CONNECTING, MAX_WAITING, UpstreamPool
from shared.errors import BY_WIRE, LocalFault
from shared.http.push_head import PushHead, decode_answer, encode_push
from shared.protocol.stream import NO_HANDLER, StreamHandler
from shared.tunnel.gaps import GapWatch

Result = TypeVar("Result")

HIGH_WATER: Final = 256 * 1024

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _VirtualSelector(selectors.SelectSelector):
    """Never waits: what would have been a wait moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("nothing will ever happen: a callback or a timer is missing")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for fakes only; its time moves when nothing else is to be done."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def freeze(self, seconds: float) -> None:
        """As if the process had been stopped."""
        self._virtual.now += seconds

    @property
    def timers(self) -> int:
        """Timer handles that are armed."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a coroutine function in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def wrapped() -> None:
        run(test)

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


async def wait(seconds: float) -> None:
    """Let so much virtual time pass."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_later(seconds, done.set_result, None)
    await done


class FakeStream:
    """The tunnel's side of a push. `log` reads as a transcript; `consumed_bytes` is what credit came back for."""

    def __init__(self, deadline: float = 0.0) -> None:
        self.deadline = deadline
        self.handler: StreamHandler = NO_HANDLER
        self.log: list[str] = []
        self.body = bytearray()
        self.handed_over = 0
        self.consumed_bytes = 0
        self.buffered = 0
        self.answers = 0
        self.ended = False
        self.was_reset = False
        self.refused: bool | None = None
        self.code = ""
        self.head: Any = None
        self.holds_back = False
        self.on_call: Callable[[], None] | None = None

    @property
    def is_over(self) -> bool:
        return self.ended or self.was_reset

    @property
    def is_writable(self) -> bool:
        return not self.holds_back or self.buffered < HIGH_WATER

    @property
    def is_sent(self) -> bool:
        return not self.holds_back or not self.buffered

    def answer(self, head: bytes, body: bytes = b"", end: bool = False, interim: bool = False) -> None:
        assert not self.is_over, "an answer after the end"
        answer = decode_answer(head)
        if interim:
            self.log.append(f"interim {answer.status}")
            return
        assert not self.answers, "a second answer"
        self.answers += 1
        self.head = answer
        self._take("answer", f"{answer.status} ", body, end)

    def send(self, data: bytes, end: bool = False) -> None:
        assert not self.is_over, "bytes after the end"
        assert self.answers, "bytes before the answer"
        self._take("send", "", data, end)

    def reset(self, wire_code: int, refused: bool = False) -> None:
        assert not self.is_over, "a reset after the end"
        self.was_reset = True
        self.refused = refused
        self.code = BY_WIRE[wire_code].code
        self.log.append(f"reset {self.code}{' refused' if refused else ''}")

    def consumed(self, n: int) -> None:
        self.consumed_bytes += n
        assert self.consumed_bytes <= self.handed_over, "more consumed than was handed over"

    # What the relay does.

    def push_data(self, data: bytes, end: bool = False) -> None:
        self.handed_over += len(data)
        self.handler.on_data(data, end)

    def relay_resets(self, wire_code: int = 108) -> None:
        self.was_reset = True
        self.log.append("relay resets")
        self.handler.on_reset(wire_code, False)

    def relay_reads(self) -> None:
        self.buffered = 0
        self.handler.on_writable()

    def _take(self, verb: str, what: str, data: bytes, end: bool) -> None:
        self.body += data
        self.buffered += len(data)
        self.ended = end
        self.log.append(f"{verb} {what}[{len(data)}]{' end' if end else ''}")
        if self.on_call is not None:
            self.on_call()


class FakeTransport(asyncio.Transport):
    """A target's socket. `written` is what the target got."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_tls: bool = True) -> None:
        super().__init__({"sslcontext": object() if is_tls else None})
        self.loop = loop
        self.protocol: Any = None
        self.is_tls = is_tls
        self.eof_sent = False
        self.written = b""
        self.writes = 0
        self.is_reading_now = True
        self.state = "open"
        self.full_at = 0
        self._is_full = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.state != "open":
            return
        self.written += bytes(data)
        self.writes += 1
        if self.full_at and len(self.written) >= self.full_at and not self._is_full:
            self._is_full = True
            self.connection.pause_writing()

    def drain(self) -> None:
        """The target has read what there was."""
        self.full_at = 0
        if self._is_full:
            self._is_full = False
            self.connection.resume_writing()

    @property
    def connection(self) -> Any:
        """What reads and writes it: an UpstreamConnection, after an upgrade a Duplex."""
        assert self.protocol is not None
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        assert not self.is_tls
        assert self.state == "open"
        self.eof_sent = True

    def is_closing(self) -> bool:
        return self.state != "open"

    def gets(self, data: bytes) -> None:
        """The target sends something."""
        assert self.is_reading_now, "data while reading is paused"
        if self.state == "open":
            self.connection.data_received(data)

    def gets_eof(self) -> None:
        if self.state == "open" and not self.connection.eof_received():
            self.close()

    def breaks(self, error: Exception | None = None) -> None:
        if self.state == "open":
            self.state = "lost"
            self.connection.connection_lost(error or ConnectionResetError(104, "reset by peer"))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        assert self.is_reading_now
        self.is_reading_now = False

    def resume_reading(self) -> None:
        assert not self.is_reading_now
        self.is_reading_now = True

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.state == "open":
            self.state = how
            self.loop.call_soon(self.connection.connection_lost, None)


class World:
    """A dispatcher with one target `t`, whose connects succeed at once, fail, or hang, as `mode` says."""

    def __init__(
        self,
        *,
        rules: tuple[Rule, ...] = (Rule(("POST", "GET", "HEAD"), "/", sub_paths=True),),
        headers: HeaderPolicy | None = None,
        max_body: int = 0,
        max_connections: int = 4,
        max_connecting: int = MAX_CONNECTING,
        max_waiting: int = MAX_WAITING,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        is_tls: bool = True,
        upgrades: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.mode: str | LocalFault = "connect"
        self.transports: list[FakeTransport] = []
        self.lines: list[dict[str, Any]] = []
        self.is_tls = is_tls
        self.full_at = 0
        self.metrics = ConnectorMetrics(process=False)
        self.pool = UpstreamPool(
            Endpoint("target.test", 443),
            self.loop,
            max_connections=max_connections,
            max_connecting=max_connecting,
            max_waiting=max_waiting,
            counts=self.metrics.target("t"),
            connector=self._connect,
        )
        self.target = Target(
            "t",
            "https://target.test",
            AccessRules(rules),
            headers or HeaderPolicy("target.test"),
            self.pool,
            self.metrics.target("t"),
            max_body=max_body,
            timeouts=timeouts,
            upgrades=upgrades,
        )
        self.table = TargetTable([self.target])
        self.gaps = GapWatch(self.loop, self.loop.time)
        self.dispatcher = Dispatcher(self.table, self.loop, self.metrics, self, self.gaps)

    def line(self, record: Any) -> None:
        self.lines.append(record)

    def text(self, line: bytes) -> None:
        assert line.endswith(b"}\n")
        self.lines.append(json.loads(line))

    async def _connect(
        self, endpoint: Endpoint, factory: Callable[[], UpstreamConnection], loop: asyncio.AbstractEventLoop
    ) -> UpstreamConnection:
        if isinstance(self.mode, LocalFault):
            raise self.mode
        if self.mode == "hang":
            await asyncio.sleep(endpoint.timeout)
            raise LocalFault("target-unreachable", "no connection in time")
        transport = FakeTransport(loop, self.is_tls)
        transport.full_at = self.full_at
        connection = factory()
        transport.protocol = connection
        connection.connection_made(transport)
        self.transports.append(transport)
        return connection

    @property
    def transport(self) -> FakeTransport:
        return self.transports[-1]

    async def settle(self) -> None:
        """Let everything happen that is due now."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def push(
        self,
        body: bytes = b"",
        end: bool = True,
        *,
        method: str = "POST",
        path: str = "/x",
        length: int | None = -1,
        target: str = "t",
        headers: list[tuple[bytes, bytes]] | None = None,
        deadline: float = 0.0,
        stream: FakeStream | None = None,
        upgrade: bytes | None = None,
        sender: str = "s4-prod",
    ) -> FakeStream:
        """A push arrives; its connection has come when this returns. `length` -1: as long as the body, if whole."""
        stream = stream or FakeStream(deadline)
        if length == -1:
            length = len(body) if end and method == "POST" else None
        head = encode_push(
            PushHead(
                target, "req-1", 1, sender, "r", method.encode(), path.encode(), length,
                [(b"Host", b"push.example.com"), (b"Content-Type", b"text/plain")] if headers is None else headers,
                upgrade,
            )
        )  # fmt: skip
        stream.handed_over += len(body)
        self.dispatcher.on_stream(stream, head, body, end)  # type: ignore[arg-type]  # a fake
        await self.settle()
        return stream

    def assert_clean(self, *streams: FakeStream) -> None:
        """Nothing is left over: no push, no connection checked out, no credit, no timer of a push."""
        assert self.dispatcher.in_flight == 0
        assert self.metrics.target("t").in_flight == 0
        assert self.pool.waiting == 0
        assert self.pool.idle == self.pool.total
        for stream in streams:
            assert stream.is_over
            assert stream.consumed_bytes == stream.handed_over
