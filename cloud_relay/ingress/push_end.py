"""A push's fields, its states, and its end: the base of the other two thirds.

    push_end      what a push is, what it took, and how all of it is given back
    push_answer   from the first byte of its answer on
    push          from its head to the tunnel

Theory of operation.

    NEW ──▶ JUDGING ──▶ QUEUED ──▶ HOLDING ──▶ OPEN ──▶ ANSWERING ──▶ DRAINING ──▶ DONE
             a slow      over a     no          a try    the head      all is written,
             hash        quota      connector   is on    is passed on  the sender reads
                                                └─────▶ UPGRADED ─────────────────▶ DONE
                                                         a stream both ways, see upgraded.py

Each arrow may skip states, each state may go straight to DONE, and OPEN may go back to HOLDING or to itself when a try
failed and another one is allowed. Up to OPEN a fault is answered with a problem document. From ANSWERING on it can only
cut the sender's connection off, so that what is not whole never looks whole.

What was counted at admission is given back in `_settle`, and nowhere else; everything that ends a push goes through it.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.health import RelayState
from cloud_relay.ingress.access import describe_kind, log_push
from shared.errors import FAULTS, Fault
from shared.http.problem import problem_response

if TYPE_CHECKING:
    from cloud_relay.ingress.answer import AnswerFraming
    from cloud_relay.ingress.connection import SenderConnection
    from cloud_relay.ingress.context import Ingress, TunnelSession, Waiter
    from cloud_relay.ingress.upgraded import UpgradedPush
    from cloud_relay.routing import Route
    from cloud_relay.senders import Sender
    from shared.http.memo import RequestMemo
    from shared.http.requests import RequestHead
    from shared.protocol import StreamEnd


class PushState(enum.Enum):
    """How far a push has come."""

    NEW = "new"
    JUDGING = "judging"
    QUEUED = "queued"
    HOLDING = "holding"
    OPEN = "open"
    ANSWERING = "answering"
    DRAINING = "draining"
    UPGRADED = "upgraded"
    DONE = "done"


_NEW, _JUDGING, _QUEUED, _HOLDING, _OPEN, _ANSWERING, _DRAINING, _UPGRADED, _DONE = PushState

_SERVING: Final = RelayState.SERVING
_INTERNAL: Final = FAULTS["internal-error"]
_OVERLOADED: Final = FAULTS["overloaded"]


class PushEnd:
    """The fields of a push, and what gives back what it took.

    `due` is when `on_due` has to be called (the loop's time, 0.0 never); whoever changes it lets the connection `arm`
    its timer. For the access line: `status` is what the sender got (0: none), `fault` whose doing it was (None: the
    target's own answer); `began`, `opened_at`, `answered_at` are the loop's times (0.0: never), `waited` the seconds
    without a connector, `queued` those until its turn came.
    """

    __slots__ = (
        "_connection", "_context", "_framing", "_future", "_has_whole_body", "_held_bytes", "_held_since", "_ingress",
        "_is_admitted", "_memo", "_owed", "_pieces", "_progress", "_state", "_stream", "_tried", "_upgraded",
        "_waiter", "answered_at", "attempt", "began", "bytes_in", "bytes_out", "due", "fault", "head", "opened_at",
        "queued", "request_id", "route", "sender", "session", "status", "waited",
    )  # fmt: skip

    def __init__(
        self,
        connection: SenderConnection,
        ingress: Ingress,
        head: RequestHead,
        now: float,
        memo: RequestMemo | None = None,
    ) -> None:
        self._connection = connection
        self._ingress = ingress
        self._context = ingress.context
        self.head = head
        self._memo = memo
        self.request_id = ingress.new_request_id()
        self.began = self._progress = now
        self.due = self.opened_at = self.answered_at = self.waited = self.queued = self._held_since = 0.0
        self.route: Route | None = None
        self.sender: Sender | None = None
        self.session: TunnelSession | None = None
        self.fault: Fault | None = None
        self.status = self.attempt = self.bytes_in = self.bytes_out = self._owed = self._held_bytes = 0
        self._state = _NEW
        self._stream: StreamEnd | None = None
        self._framing: AnswerFraming | None = None
        self._future: asyncio.Future[Any] | None = None
        self._waiter: Waiter | None = None
        self._upgraded: UpgradedPush | None = None
        self._pieces: list[bytes] | None = None
        self._tried: tuple[TunnelSession, ...] = ()
        self._is_admitted = self._has_whole_body = False

    def __repr__(self) -> str:
        return (
            f"<Push {self.request_id} {self._state.value} attempt={self.attempt} status={self.status} "
            f"in={self.bytes_in} out={self.bytes_out}>"
        )

    def abandon(self, fault: Fault) -> None:
        """The sender is gone: nobody waits for an answer. The connection is not called any more."""
        if self._upgraded is not None:
            self._upgraded.end(fault)
        elif self._state is not _DONE:
            if self._state is not _DRAINING:
                self.fault = fault
            self._reset_stream(fault)
            self._settle()

    def give_up(self, fault: Fault) -> None:
        """There is no more time: answer where no answer has begun. One that has begun may still end by itself; what was
        upgraded does not."""
        if self._state is not _ANSWERING and self._state is not _DRAINING:
            self._fail(fault)

    def crash(self) -> None:
        """A bug of ours, reported already: answer if that is still possible, and give everything back in any case."""
        connection = self._connection
        if self._state is _DONE:
            connection.abort()
            return
        try:
            self._fail(_INTERNAL)
        finally:
            if self._state is not _DONE:
                connection.cut_off()
                self._settle()

    def _fail(self, fault: Fault) -> None:
        """End with an answer of our own; once another has begun, by cutting the connection off."""
        state = self._state
        if state is _DONE:
            return
        if self._upgraded is not None:
            self._upgraded.end(fault)
            return
        self.fault = fault
        self._reset_stream(fault)
        connection, head = self._connection, self.head
        if fault.status is None or state is _ANSWERING or state is _DRAINING:
            connection.cut_off()
            self._settle()
            return
        keep = not fault.closes and self._may_keep()
        self.status = fault.status
        connection.transport.write(
            problem_response(
                fault,
                self.request_id,
                keep_alive=keep,
                head_only=head.method == b"HEAD",
                retry_after=self._retry_after(fault),
                extra_headers=self._challenge(fault),
                now=time.time(),
            )
        )
        self._settle()
        connection.push_refused(keep=keep)

    def end_upgraded(self, fault: Fault | None, bytes_in: int, bytes_out: int) -> None:
        """The connection that the push became is over; `fault` is why it was cut off."""
        self.fault = fault
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self._settle()

    def _asks_upgrade(self) -> bool:
        """Whether the sender wants a WebSocket, and the route lets it."""
        return self.head.upgrade is not None and self.route is not None and self.route.upgrades

    def _may_keep(self) -> bool:
        """Whether the connection may be used again after an answer of our own."""
        head = self.head
        return (
            head.keep_alive
            and head.version != (1, 0)
            and self._ingress.state is _SERVING
            and (self._has_whole_body or (self._connection.can_skip_body() and not head.expects_continue))
            and not (self._asks_upgrade() and self._connection.has_kept)
        )

    def _retry_after(self, fault: Fault) -> int | None:
        if not fault.retry_after:
            return None
        route, sender = self.route, self.sender
        if route is not None and sender is not None and fault is route.quota_fault:
            return self._context.limits.retry_after(sender, route, self._ingress.time())
        return self._ingress.retry_after()

    def _challenge(self, fault: Fault) -> tuple[tuple[bytes, bytes], ...]:
        if fault.status == 401 and self.route is not None and self.route.www_authenticate:
            return ((b"WWW-Authenticate", self.route.www_authenticate),)
        return ()

    def _reset_stream(self, fault: Fault) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(fault.wire)

    def _settle(self) -> None:
        """Give back what was taken, once; then count and log."""
        route, sender = self.route, self.sender
        self._state = _DONE
        if route is not None:
            route.metrics.in_flight -= 1
            if self._is_admitted and sender is not None:
                route.metrics.accepted += 1
                if self._upgraded is not None:
                    self._context.limits.passes(sender)
                self._context.limits.release(sender, route)
        self._drop_pieces()
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        if self._future is not None:
            self._future.cancel()
            self._future = None
        self._stream = self._framing = self._upgraded = None
        log_push(self, self._context, self._connection, self._ingress.time())

    def kind(self) -> str:
        """What its access line shares with the last push of the connection, from memory if they are of one kind."""
        memo = self._memo
        if memo is None or memo.prepared_for != (self.route, self.sender):
            return describe_kind(self, self._connection.source)
        if not memo.described:
            memo.described = describe_kind(self, self._connection.source)
        return memo.described

    def _hold_bytes(self, n: int) -> None:
        """Bytes that wait here for a connector or a verdict count against the memory budget, but may not use it up."""
        if not n:
            return
        budget = self._context.budget
        if budget.used + n > budget.limit >> 1:
            self._fail(_OVERLOADED)
            return
        budget.used += n
        self._held_bytes += n
        if self._held_bytes >= self._context.settings.replay_buffer and not self._has_whole_body:
            self._connection.pause_reading()

    def _drop_pieces(self) -> None:
        """The push cannot be sent again from here on."""
        self._context.budget.used -= self._held_bytes
        self._held_bytes = 0
        self._pieces = None

    def _on_bug(self, error: Exception) -> None:
        self._ingress.on_bug(error, self.request_id)
        try:
            self.crash()
        except Exception as second:  # noqa: BLE001 - as above; everything is given back by now
            self._ingress.on_bug(second, self.request_id)
