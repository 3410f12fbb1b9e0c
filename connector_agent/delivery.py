"""One push on its way from the tunnel to its target, and the answer on its way back.

Theory of operation. A delivery sits between a stream (the tunnel's side) and an upstream connection (the target's
side), and is called by both; nothing here waits. It is over exactly once: when the answer has ended, when it was reset
by us (`_give_up`), or when the relay reset it. Bytes that the stream handed over are given back by `consumed` as soon
as the target's socket has room, so that a slow target slows its sender and nobody else.

    waiting ──connection──▶ sending ──end of the push──▶ answered? ──end of the answer──▶ over
       └─ refused: nothing was written, another connector may have the push
       │                       └─ lost or timed out: the push may have been delivered, nobody may repeat it
       └─ asks for a WebSocket, and the target answers 101: what follows is in upgraded.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector_agent.delivery_end import DeliveryEnd
from connector_agent.headers_policy import relocate
from connector_agent.upgraded import UpgradedDelivery
from connector_agent.upstream.answer import MAX_INTERIM_SIZE, MAX_PASSED_INTERIM
from connector_agent.upstream.pool import KEEP_ALIVE_SHARE, MAX_IDLE
from shared.errors import BY_WIRE, LocalFault
from shared.http.chunked import LAST_CHUNK, encode_chunk
from shared.http.headers import prepare_answer_headers
from shared.http.push_head import encode_answer

if TYPE_CHECKING:
    from connector_agent.upstream.connection import UpstreamConnection
    from shared.http.responses import ResponseHead

REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that a proxy may repeat on its own (RFC 9110 §9.2.2)."""

TIMER_EARLINESS: Final = 0.002
"""Seconds by which a loop may fire a timer before its time: uvloop rounds to milliseconds."""

_WITHOUT_BODY: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE"})


class Delivery(DeliveryEnd):
    """One push: what its stream, the pool and its connection call."""

    __slots__ = ()

    def start(self, body: bytes, end: bool) -> None:
        """Begin with what the first frame held."""
        try:
            self._start(body, end)
        except Exception:
            # The tunnel resets the stream and reports the error; a connection that we hold would be held for ever.
            self.abort("connector-error")
            raise

    def _start(self, body: bytes, end: bool) -> None:
        self.received = self._unreturned = len(body)
        self._is_ended = end
        code = self.plan.code or self._judge_size(end)
        if self.push.upgrade is not None:
            # What asks for an upgrade has no body, and its half stays open for what follows a 101.
            if body or end or self.push.content_length is not None:
                code = code or "bad-push"
            self._is_ended = True
        deadline = self._stream.deadline
        if deadline and self.started_at >= deadline:
            code = code or "deadline-exceeded"
        if code is not None:
            self._give_up(code)
            return
        connection = self.target.pool.take(self.started_at)
        if connection is not None:
            self.given_at = self.started_at
            self._send_push(connection, body)
            return
        if body:
            self._held.append(body)
        self._wait()

    def abort(self, code: str) -> None:
        """Give up, whatever the state, for this reason."""
        if self._upgraded is not None:
            self._upgraded.end(code)
        elif not self.is_over:
            self._give_up(code)

    def recheck(self) -> None:
        """The targets were replaced: a WebSocket lives on only if this one, or its successor, would still take it."""
        if self._upgraded is not None:
            code = self._recorder.judge(self.push, self.target)
            if code is not None:
                self.abort(code)

    def on_gap(self) -> None:
        """The process was away, and the relay may have told the sender so: what waits must not be delivered late."""
        if self._is_waiting:
            self._give_up("target-lost" if self.was_written else "tunnel-refused", "the process was away")

    # What the stream calls.

    def on_data(self, data: bytes, end: bool) -> None:
        """More of the push's body, or only its end."""
        size = len(data)
        if self.is_over or self._is_discarding:
            self._is_ended = end
            self._stream.consumed(size)
            return
        try:
            if self.push.upgrade is not None:
                self._take_early(size)
            else:
                self._take_data(data, size, end)
        except Exception:
            self.abort("connector-error")
            raise

    def _take_data(self, data: bytes, size: int, end: bool) -> None:
        self.received += size
        self._unreturned += size
        self._is_ended = end
        code = self._judge_size(end)
        if code is not None:
            self._give_up(code)
            return
        connection = self._connection
        if connection is None:
            if size:
                self._held.append(data)
            return
        if self._is_chunked:
            data = encode_chunk(data) + LAST_CHUNK if end else encode_chunk(data)
        connection.write(data)
        if end:
            self.given_at = self._now()
        self._after_write(connection)

    def _take_early(self, size: int) -> None:
        """Before a 101, or without one, nothing may follow what asked for it; the end may, behind the answer."""
        self._unreturned += size
        if size or not self._is_answered:
            self._give_up("bad-push", "bytes or an end before the upgrade")

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """The relay gave the push up, or its tunnel is lost: the target is told by the end of its connection."""
        if not self.is_over:
            fault = BY_WIRE.get(wire_code)
            # A number that we do not know becomes no label of a metric: the relay could make up any.
            self._end(fault.code if fault is not None else "reset", is_known=False)

    def on_writable(self) -> None:
        """The relay has taken enough of the answer."""
        connection = self._connection
        if connection is not None:
            connection.set_deadline(self._now() + self.target.timeouts.idle)
            connection.resume_reading()

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """Only an opener's streams call this."""

    # What the pool calls.

    def on_connection(self, connection: UpstreamConnection) -> None:
        """A connection for the push that waited for one."""
        now = self._now()
        self._recorder.look(now)
        if self.is_over:
            connection.release(keep=True)
            return
        self._is_waiting = False
        deadline = self._stream.deadline
        if deadline and now >= deadline:
            connection.release(keep=True)
            self._give_up("deadline-exceeded")
            return
        body = b"".join(self._held)
        self._held.clear()
        self.given_at = now
        self.waited = now - self.started_at
        self._send_push(connection, body)

    def on_no_connection(self, fault: LocalFault) -> None:
        """There is no connection to be had."""
        self._is_waiting = False
        deadline = self._stream.deadline
        if deadline and self._now() >= deadline:
            self._give_up("deadline-exceeded", fault.detail)
        else:
            self._give_up(fault.fault.code, fault.detail)

    # What the connection calls.

    def on_interim(self, head: ResponseHead) -> None:
        """An answer of 1xx passes ahead of all else in the tunnel: only a few, and none that is large."""
        encoded = encode_answer(head.status, None, prepare_answer_headers(head.headers))
        if self._interims >= MAX_PASSED_INTERIM or len(encoded) > MAX_INTERIM_SIZE:
            self.target.metrics.dropped_interims += 1
            return
        self._interims += 1
        self._stream.answer(encoded, interim=True)

    def on_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        """The answer's head, and often all of its body."""
        status = head.status
        if (status == 401 or status == 407) and self.target.headers.injects_credential:
            self.status = status
            self._give_up("target-credential-refused")
            return
        self._is_answered = True
        self.status = status
        self.first_byte_at = self._now()
        self._keep_alive = head.keep_alive
        connection = self._connection
        if connection is not None and head.keep_alive_timeout is not None:
            connection.idle_limit = min(MAX_IDLE, head.keep_alive_timeout * KEEP_ALIVE_SHARE)
        if head.dropped:
            self.target.metrics.dropped_headers += head.dropped
        length = len(body) if end and head.has_body else head.content_length
        if b"location" in head.fields or connection is None:
            headers = prepare_answer_headers(head.headers)
            headers = relocate(headers, self.target.url, self.target.headers.host_of(self.push.headers))
            encoded = encode_answer(status, length, headers)
        else:
            encoded = connection.encoded_head(head, length)
        self.sent = len(body)
        self._stream.answer(encoded, body, end)
        if not self._is_ended and status >= 300:
            # The target has judged before the end, and will not look at the rest.
            self._discard()
        self._after_answer(end)

    def on_body(self, data: bytes, end: bool) -> None:
        """More of the answer's body."""
        self.sent += len(data)
        self._stream.send(data, end)
        self._after_answer(end)

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        """The target speaks WebSocket from here on."""
        connection = self._connection
        if connection is None or self.is_over:
            return
        code = self._recorder.judge(self.push, self.target)
        if code is not None:  # a reload since it was asked
            self._give_up(code)
            return
        self._is_answered = True
        self.status = head.status
        self.first_byte_at = self._now()
        self.target.metrics.dropped_headers += head.dropped
        upgraded = self._upgraded = UpgradedDelivery(self, connection, self._stream)
        upgraded.start(head, data, self.target.pool.loop)

    def on_lost(self, detail: str, *, is_malformed: bool) -> None:
        """The connection is gone, and the answer not whole."""
        if self._upgraded is not None:
            self.detail = detail
            self._upgraded.end("target-lost")
            return
        connection = self._connection
        self._connection = None
        if self.is_over or connection is None:
            return
        if is_malformed:
            self._give_up("target-malformed-answer", detail)
        elif connection.reader.has_bytes:
            self._give_up("connection-closed", detail)
        elif self._may_retry(connection):
            self._is_retried = True
            self._wait()
        else:
            self._give_up("target-lost", detail)

    def on_timeout(self) -> None:
        """The target took too long, or the push's own time is over."""
        if not self.is_over:
            deadline = self._stream.deadline
            is_late = (
                deadline and self._now() >= deadline - TIMER_EARLINESS and not (self._is_answered or self._is_ended)
            )
            self._give_up("deadline-exceeded" if is_late else "target-too-slow")

    def on_paused(self) -> None:
        """The target's socket is full: `consumed` has to wait."""
        connection = self._connection
        if connection is not None:
            self._arm(connection)

    def on_resumed(self) -> None:
        """The target's socket has room again."""
        connection = self._connection
        if connection is not None:
            self._return_credit()
            self._arm(connection)

    # How it goes on.

    def _judge_size(self, end: bool) -> str | None:
        """What is wrong with the bytes so far: the target's limit, or a length that the relay announced wrongly."""
        announced = self.push.content_length
        limit = self.target.max_body
        if limit and (self.received > limit or (announced is not None and announced > limit)):
            return "target-body-too-large"
        if announced is not None and (self.received > announced or (end and self.received != announced)):
            return "bad-push"
        return None

    def _wait(self) -> None:
        self._is_waiting = True
        fault = self.target.pool.wait(self, self._stream.deadline, self.push.sender)
        if fault is not None:
            self._is_waiting = False
            self._give_up(fault.fault.code, fault.detail)

    def _send_push(self, connection: UpstreamConnection, body: bytes) -> None:
        """Write the request's head and what there is of its body, in one piece when that is all."""
        push = self.push
        length = push.content_length
        if length is None and self._is_ended and (body or push.method not in _WITHOUT_BODY):
            length = len(body)
        self._is_chunked = is_chunked = length is None and not self._is_ended
        request = self.plan.request(push.request_id, length, is_chunked=is_chunked)
        self._connection = connection
        self.was_written = True
        self.was_reused = connection.is_reused
        connection.begin(self, push.method, request, encode_chunk(body) if is_chunked else body)
        if self.plan.upgrades:
            connection.reader.expect_upgrade()
        self._after_write(connection)

    def _after_write(self, connection: UpstreamConnection) -> None:
        if not connection.is_paused:
            self._return_credit()
        self._arm(connection)

    def _after_answer(self, end: bool) -> None:
        connection = self._connection
        if self.is_over or connection is None:
            return  # the stream was reset while it took the bytes
        if end:
            self._end("", is_known=True)
        elif self._stream.is_writable:
            connection.set_deadline(self._now() + self.target.timeouts.idle)
        else:
            connection.pause_reading()
            connection.set_deadline(0.0)

    def _discard(self) -> None:
        """Send no more of the push; take what comes, so that the relay need not hold it."""
        self._is_discarding = True
        self._return_credit()

    def _may_retry(self, connection: UpstreamConnection) -> bool:
        """Whether a connection that the target had closed already may be to blame, and the push may be repeated."""
        return (
            connection.is_reused
            and not self._is_retried
            and self._is_ended
            and not self.received
            and self.push.method in REPEATABLE
        )
