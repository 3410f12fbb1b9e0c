"""Fakes that record: a loop of virtual time, a transport, and the tunnel side as far as the ingress sees it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from shared.errors import FAULTS, LocalFault
from shared.http.push_head import PushHead, decode_push, encode_answer

if TYPE_CHECKING:
    from tests.cloud_relay.ingress.kit import Relay

START = 1000.0


class Clock:
    """An event loop of virtual time: what the ingress uses of one."""

    def __init__(self) -> None:
        self.now = START
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._soon: list[asyncio.Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, cast(Any, self), context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, cast(Any, self), context)
        self._soon.append(handle)
        return handle

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def run(self) -> None:
        """Everything that is due."""
        while self._soon or (self._timers and self._timers[0][0] <= self.now):
            self.turn()
            while self._timers and self._timers[0][0] <= self.now:
                timer = heapq.heappop(self._timers)[2]
                if not timer.cancelled():
                    timer._run()

    def turn(self) -> None:
        """What the loop does in one turn without any timer."""
        soon, self._soon = self._soon, []
        for handle in soon:
            if not handle.cancelled():
                handle._run()

    def sleep(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        self.run()
        while self._timers and self._timers[0][0] <= end:
            self.now = max(self.now, self._timers[0][0])
            self.run()
        self.now = end
        self.run()

    @property
    def armed(self) -> int:
        """Timers that would still fire."""
        return sum(not timer.cancelled() for _, _, timer in self._timers)


class FakeSocket:
    def __init__(self) -> None:
        self.options: list[tuple[Any, ...]] = []

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)


class FakeTransport(asyncio.Transport):
    """Records what is written. `room` is what the sender reads before the transport blocks."""

    def __init__(self, relay: Relay, *, is_tls: bool = False) -> None:
        super().__init__()
        self.relay = relay
        self.is_tls = is_tls
        self.socket = FakeSocket()
        self.protocol: Any = None
        self.writes: list[bytes] = []
        self.is_paused = False
        self.eof_sent = False
        self.how_ended = ""
        self.room = float("inf")
        self.is_lost = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.socket, "peername": ("192.0.2.7", 4711)}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.eof_sent, "written after EOF"
        assert data, "empty write"
        if self.is_closing():
            return
        self.writes.append(bytes(data))
        was_blocked = self.room < 0
        self.room -= len(data)
        if self.room < 0 and not was_blocked:
            self.protocol.pause_writing()

    def drain(self, room: float = float("inf")) -> None:
        """The sender reads."""
        was_blocked = self.room < 0
        self.room = room
        if was_blocked and room >= 0 and not self.is_lost:
            self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        assert not self.is_tls
        self.eof_sent = True

    def pause_reading(self) -> None:
        assert not self.is_closing()
        self.is_paused = True

    def resume_reading(self) -> None:
        assert not self.is_closing()
        self.is_paused = False

    def is_closing(self) -> bool:
        return bool(self.how_ended)

    def close(self) -> None:
        if not self.how_ended:
            self.how_ended = "closed"
            if self.room >= 0:
                self.relay.clock.call_soon(self.lose)

    def abort(self) -> None:
        if self.how_ended in {"", "closed"}:
            self.how_ended = "reset" if self.socket.options else "aborted"
        self.relay.clock.call_soon(self.lose)

    def lose(self, error: Exception | None = None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.how_ended = self.how_ended or "lost"
            self.protocol.connection_lost(error)


class FakeStream:
    """The relay's end of a stream; `body` and `ended` are what the push sent into it."""

    def __init__(self, link: FakeLink, handler: Any, head: bytes, body: bytes, end: bool, deadline: float) -> None:
        self.link = link
        self.handler = handler
        self.head: PushHead = decode_push(head)
        self.first = (body, end)
        self.body = body
        self.ended = end
        self.deadline = deadline
        self.was_reset: tuple[int, bool] | None = None
        self.was_sent = True
        self.room = True
        self.wants_writable = False
        self.handed = 0
        self.taken = 0
        self.is_over = False
        self.answer_ended = False

    @property
    def is_writable(self) -> bool:
        self.wants_writable = self.wants_writable or not self.room
        return self.room

    @property
    def is_sent(self) -> bool:
        return self.room

    def send(self, data: bytes, end: bool = False) -> None:
        if self.is_over:
            return
        assert not self.ended, "sent after the end"
        self.body += data
        self.ended = end
        self._look()

    def reset(self, wire_code: int, refused: bool = False) -> None:
        if not self.is_over or self.taken < self.handed:
            self.was_reset = (wire_code, refused)
            self.taken = self.handed
        self.is_over = True

    def consumed(self, n: int) -> None:
        assert n > 0
        self.taken += n
        assert self.taken <= self.handed, "more consumed than handed over"

    # What the connector does.

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        end: bool = True,
        length: int | None = -1,
        headers: Any = (),
        interim: bool = False,
    ) -> None:
        """Answer; the length is that of the body unless said otherwise, None: not known."""
        if self.is_over:
            return
        if length == -1:
            length = len(body) if end else None
        self.answer_raw(encode_answer(status, length, list(headers)), body, end=end, interim=interim)

    def answer_raw(self, head: bytes, body: bytes = b"", *, end: bool = True, interim: bool = False) -> None:
        self.handed += len(body)
        self.answer_ended = end
        self._look()
        self.handler.on_answer(head, body, end, interim)

    def data(self, data: bytes, *, end: bool = False) -> None:
        if self.is_over:
            return
        self.handed += len(data)
        self.answer_ended = end
        self._look()
        self.handler.on_data(data, end)

    def fail(self, code: str | int, *, refused: bool = False) -> None:
        """RESET by the other side, or by a lost tunnel."""
        if self.is_over and self.taken == self.handed:
            return
        self.is_over = True
        self.taken = self.handed
        self.handler.on_reset(FAULTS[code].wire if isinstance(code, str) else code, refused)

    def make_room(self) -> None:
        self.room = True
        if self.wants_writable and not self.is_over:
            self.wants_writable = False
            self.handler.on_writable()

    def _look(self) -> None:
        if self.ended and self.answer_ended:
            self.is_over = True


class FakeLink:
    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.streams: list[FakeStream] = []
        self.can_open = True
        self.is_open = True
        self.is_draining = False
        self.new_streams_have_room = True

    def open_stream(
        self, handler: Any, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> FakeStream:
        if not self.can_open:
            raise LocalFault("tunnel-refused", "closed meanwhile")
        stream = FakeStream(self, handler, head, body, end, deadline)
        stream.room = self.new_streams_have_room
        self.streams.append(stream)
        self.relay.streams.append(stream)
        return stream


class FakeSession:
    def __init__(self, relay: Relay, connector: str) -> None:
        self.identity = SimpleNamespace(tenant="acme", location="dc1", connector=connector)
        self.link = FakeLink(relay)
        self.is_usable = True

    def __repr__(self) -> str:
        return f"<FakeSession {self.identity.connector}>"


class FakeWaiter:
    def __init__(self, registry: FakeRegistry, callback: Any) -> None:
        self.registry = registry
        self.callback = callback

    def cancel(self) -> None:
        self.registry.waiters.remove(self)


class FakeRegistry:
    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.waiters: list[FakeWaiter] = []
        self.asked: list[tuple[str, str, str]] = []
        self.doubted: list[FakeSession] = []

        self.is_old_news = False

    def doubt(self, key: tuple[str, str, str], session: FakeSession) -> bool:
        self.doubted.append(session)
        return self.is_old_news

    def choose(
        self, tenant: str, location: str, target: str, exclude: Any = (), *, other_connector: bool = False
    ) -> FakeSession | None:
        self.asked.append((tenant, location, target))
        names = {session.identity.connector for session in exclude}
        usable = [session for session in self.sessions if session.is_usable and session not in exclude]
        elsewhere = [session for session in usable if session.identity.connector not in names]
        return next(iter(elsewhere if elsewhere or other_connector else usable), None)

    def wait(self, key: tuple[str, str, str], callback: Any) -> FakeWaiter:
        assert key == ("acme", "dc1", "prom")
        waiter = FakeWaiter(self, callback)
        self.waiters.append(waiter)
        return waiter

    def attach(self, session: FakeSession) -> None:
        self.sessions.append(session)
        self.wake()

    def wake(self) -> None:
        """A session that was suspect is usable again."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.callback()

    def detach(self, session: FakeSession, *, sent: bool = True) -> None:
        """The tunnel is lost."""
        self.sessions.remove(session)
        for stream in session.link.streams:
            stream.was_sent = sent
            stream.fail("tunnel-lost", refused=not sent)


class FakeAuthenticator:
    """`verdict` is what it says: a sender, a fault, a future, or an exception."""

    def __init__(self) -> None:
        self.verdict: Any = None

    def authenticate(self, route: Any, head: Any, caller: Any) -> Any:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class FakeAccessLog:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def line(self, record: Any) -> None:
        self.lines.append(record)

    def text(self, line: bytes) -> None:
        assert line.endswith(b"}\n")
        self.lines.append(json.loads(line))
