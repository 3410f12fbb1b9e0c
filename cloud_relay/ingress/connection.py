"""One sender's connection: where heads and bodies begin and end, one push at a time.

Theory of operation. HEAD collects a head, up to the CRLFCRLF that we find. BODY takes the rest of a body that did not
come along with its head; it is handed to the push, or thrown away when the push was answered already. WAITING has the
whole request and waits for its push; what comes now belongs to later requests and is kept, bounded, in order to notice
the sender hanging up. LINGERING has answered for the last time and throws input away, so that the sender can read.

            ┌───────────── answered, kept alive ─────────────┐
            ▼                                                │
          HEAD ── head, part of its body ──▶ BODY ── end ──▶ WAITING
            │                                 │ answered       │ answered, closing
            └── refused ─────▶ LINGERING ◀────┘                ▼
                                   └── end, time, bytes ──▶ CLOSED

A push that becomes a WebSocket takes the transport along (`hand_over`): what follows is not HTTP, see upgraded.py.

The classes stand on one another: EndingConnection (closing.py) is below requests and answers, ServingConnection
(serving.py) is what a push calls, SenderConnection here reads and is what the transport calls.

Nothing here knows routes, tunnels or statuses: see push.py. Bytes of one request never reach the parser of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from cloud_relay.health import RelayState
from cloud_relay.ingress.access import log_refused
from cloud_relay.ingress.body import BodyReader, Pace, begin_body
from cloud_relay.ingress.closing import State
from cloud_relay.ingress.push import Push
from cloud_relay.ingress.serving import ServingConnection
from cloud_relay.sources import source_key
from shared.errors import FAULTS
from shared.http.chunked import BadChunk
from shared.http.gate import BadRequest, check_unfinished_request_head, find_head_end
from shared.http.memo import RequestMemo, remember_request
from shared.http.requests import parse_request_head

if TYPE_CHECKING:
    from cloud_relay.ingress.context import Ingress
    from cloud_relay.metrics import ListenerMetrics


# Looking an Enum's member up costs an attribute access on every call; the hot path binds them once.
_HEAD, _BODY, _WAITING, _LINGERING, _CLOSED = State

_SERVING: Final = RelayState.SERVING
_TOO_SLOW: Final = FAULTS["sender-too-slow"]

_AT_ONCE: Final = 8
"""Pipelined requests that are answered without leaving the loop to others, where we answer at once: refusals."""


class SenderConnection(ServingConnection):
    """The ingress's side of one connection. `on_made` is called first, `on_lost` as the last thing, once.

    `source` is the sender's address, `scheme` "http" or "https", `peer` the client certificate that TLS has verified.
    """

    __slots__ = ("_awaits_turn", "_memo", "_on_lost", "_on_made")

    def __init__(
        self,
        ingress: Ingress,
        metrics: ListenerMetrics,
        on_lost: Callable[[SenderConnection], None],
        *,
        source: str,
        scheme: str,
        on_made: Callable[[SenderConnection], None] | None = None,
    ) -> None:
        super().__init__(ingress, metrics, source, scheme, self._on_timer)
        self._on_lost = on_lost
        self._on_made = on_made
        self._memo: RequestMemo | None = None
        self._awaits_turn = False

    def __repr__(self) -> str:
        return f"<SenderConnection {self._state.value} buffer={len(self._buffer)} push={self._push!r}>"

    # ---------------------------------------------------------------- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._on_made is not None:
            self._on_made(self)
            self._on_made = None
        now = self._rests_since = self.ingress.time()
        self._timer.set(now + self.settings.first_byte_timeout)

    def data_received(self, data: bytes) -> None:
        state = self._state
        try:
            if state is _BODY or (state is _HEAD and not self._buffer and not self._awaits_turn):
                self._advance(data)
            elif state is _HEAD:
                self._collect(data)
            elif state is _WAITING:
                self._keep(data)
            elif state is _LINGERING:
                self._throw_away(data)
        except Exception as error:  # noqa: BLE001 - reported by on_bug; a bug in one push must harm no other
            self._fail(error)

    def eof_received(self) -> bool:
        """The sender hung up. A half-closed connection looks the same, and is treated the same."""
        self._end_push()
        self._close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_push()
        self._state = _CLOSED
        self._timer.release()  # or a cycle is left that only the garbage collector would find
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._is_write_blocked = True

    def resume_writing(self) -> None:
        self._is_write_blocked = False
        try:
            if self._push is not None:
                self._push.on_drained()
            elif self._state is _HEAD and not self._awaits_turn:
                self._next()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    # ---------------------------------------------------------------- reading

    def _advance(self, data: bytes) -> None:
        """Go through bytes from the start of a head, or from within a body."""
        self._is_advancing = True
        heads = 0
        try:
            while data:
                state = self._state
                if state is _HEAD:
                    # So many are answered already, or the last one before this part of its body: others come first.
                    if heads == _AT_ONCE or (self._owes_turn and not heads):
                        self._keep(data)
                        self._owes_turn = True
                        break
                    heads += 1
                    data = self._take_head(data)
                elif state is _BODY:
                    data = self._take_body(data)
                elif state is _WAITING:
                    self._keep(data)
                    return
                else:
                    return
        finally:
            self._is_advancing = False
        if self._state is _HEAD and (not self._buffer or self._is_write_blocked or self._owes_turn):
            self._rest()

    @property
    def wants_turn(self) -> bool:
        """See Waiter."""
        return self._awaits_turn and self._state is _HEAD

    def take_turn(self) -> None:
        """See Waiter. One that does not read its answers keeps owing it: there is nothing to be had from it now."""
        self._awaits_turn = False
        self._owes_turn = self._is_write_blocked
        try:
            self._next()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _rest(self) -> None:
        """Between two requests, while the sender does not read its answers, or until its turn has come: only the
        keep-alive time-out runs."""
        if self.ingress.state is not _SERVING:
            self._close()
        else:
            now = self._rests_since = self.ingress.time()
            self._timer.set(now + self.settings.keep_alive_timeout)
            if self._owes_turn and not self._is_write_blocked:
                self._awaits_turn = True
                self.pause_reading()
                self.ingress.refusals.join(source_key(self.source), self)

    def _take_head(self, data: bytes) -> bytes:
        if self._is_write_blocked:  # the sender does not read its answers: the next push waits until it does
            self._keep(data)
            return b""
        end = find_head_end(data)
        if end < 0:
            self._buffer += data
            self._timer.set(self.ingress.time() + self.settings.head_timeout)
            self._check_unfinished(0)
            return b""
        self.metrics.requests += 1
        raw = data if end == len(data) else data[:end]
        memo = self._memo
        try:
            head = memo.read(raw) if memo is not None else None
            if head is None:
                head = parse_request_head(raw)
                memo = self._memo = remember_request(raw, head)
            body, rest, reader = begin_body(head, data[end:])
        except (BadRequest, BadChunk) as error:
            self._refuse(error.fault)
            return b""
        ingress = self.ingress
        now = ingress.time()
        self._owes_turn = False
        push = self._push = Push(self, ingress, head, now, memo)
        if reader is None:
            self._state = _WAITING
            push.start(body, whole=True)
            if self._state is _WAITING:  # it is not answered yet
                self._timer.set(push.due)
            return rest
        self._state = _BODY
        self._body = reader
        settings = self.settings
        pace = self._pace = Pace(settings.slow_body_rate, settings.slow_body_window, now)
        self._owes_continue = head.expects_continue and not body
        if self._owes_continue:
            pace.pause(now)
        push.start(body, whole=False)
        self.arm()
        return rest

    def _take_body(self, data: bytes) -> bytes:
        reader, pace = cast(BodyReader, self._body), cast(Pace, self._pace)
        pace.count(len(data))
        try:
            body, whole, rest = reader.feed(data)
        except BadChunk as error:
            if self._push is not None:
                self._push.refuse_body(error.fault)
            else:
                self._linger()
            return b""
        if whole:
            self._state = _WAITING
            self._body = self._pace = None
        push = self._push
        if push is not None:
            push.on_body(body, whole)
        elif whole:
            self._state = _HEAD
        else:
            self._skipped += len(data)
            if self._skipped > self.settings.skip_body:
                self._linger()
        return rest

    def _collect(self, data: bytes) -> None:
        """Add to a head of which a part is here already."""
        buffer = self._buffer
        if self._is_write_blocked or self._awaits_turn:
            self._keep(data)
            return
        start = len(buffer)
        buffer += data
        if find_head_end(buffer, start) < 0:
            self._check_unfinished(start)
            return
        data = bytes(buffer)
        buffer.clear()
        self._advance(data)

    def _check_unfinished(self, start: int) -> None:
        try:
            check_unfinished_request_head(self._buffer, start)
        except BadRequest as error:
            self._refuse(error.fault)

    def _next(self) -> None:
        """Go on with what was kept while the last push was answered."""
        self.resume_reading()
        buffer = self._buffer
        if not buffer or self._is_write_blocked or self._owes_turn:
            self._rest()
        else:
            data = bytes(buffer)
            buffer.clear()
            self._advance(data)

    # ---------------------------------------------------------------- time

    def _on_timer(self) -> None:
        try:
            self._on_due(self.ingress.time())
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _on_due(self, now: float) -> None:
        state, push, pace = self._state, self._push, self._pace
        if state is _CLOSED or state is _LINGERING:
            self._give_up()
        elif state is _HEAD:
            if self._buffer:
                self.metrics.failed(_TOO_SLOW)
                log_refused(self.ingress, self.ingress.new_request_id(), self.source, _TOO_SLOW)
            self._close()
        elif state is _BODY and pace is not None and pace.is_too_slow(now):
            self._end_push(_TOO_SLOW)
            self._cut()
        else:
            if push is not None and push.due and now >= push.due:
                push.on_due(now)
            if self._state in {_BODY, _WAITING}:
                self.arm()
