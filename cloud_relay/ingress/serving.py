"""What a push does with its sender's connection: it asks for the body, and keeps the connection, ends it or takes it
along. What is below requests and answers is in closing.py, what reads requests in connection.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cloud_relay.ingress.answer import AnswerMemo
from cloud_relay.ingress.body import LengthReader
from cloud_relay.ingress.closing import EndingConnection, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_relay.certificates import PeerCertificate
    from cloud_relay.ingress.context import Ingress
    from cloud_relay.metrics import ListenerMetrics

# Looking an Enum's member up costs an attribute access on every call; the hot path binds them once.
_HEAD, _BODY, _WAITING, _LINGERING, _CLOSED = State

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ServingConnection(EndingConnection):
    """The middle of a sender's connection: what a push calls.

    `source` is the sender's address, `scheme` "http" or "https", `peer` the client certificate that TLS has verified.
    """

    __slots__ = ("_is_advancing", "_owes_continue", "_owes_turn", "_skipped", "last_answer", "peer", "scheme")

    def __init__(
        self, ingress: Ingress, metrics: ListenerMetrics, source: str, scheme: str, on_timer: Callable[[], None]
    ) -> None:
        super().__init__(ingress, metrics, source, on_timer)
        self.peer: PeerCertificate | None = None
        self.scheme = scheme
        self.last_answer: AnswerMemo | None = None
        self._skipped = 0
        self._is_advancing = self._owes_continue = self._owes_turn = False

    def can_skip_body(self) -> bool:
        """Whether what is missing of the body is little enough to be read and thrown away, to keep the connection."""
        body = self._body
        return self._state is _WAITING or (type(body) is LengthReader and body.remaining <= self.settings.skip_body)

    def body_is_wanted(self) -> None:
        """The push has a place to go: a sender that asked first may send its body."""
        if self._owes_continue:
            self._owes_continue = False
            if self._state is _BODY:
                self.transport.write(_CONTINUE)
                if self._pace is not None:
                    self._pace.resume(self.ingress.time())

    def arm(self) -> None:
        """Set the timer to the earliest thing that can become due while a request is in hand."""
        due = self._push.due if self._push is not None else 0.0
        if self._pace is not None and self._state is _BODY:
            slow = self._pace.due(self.ingress.time())
            if not due or slow < due:
                due = slow
        if due:
            self._timer.set(due)

    def push_refused(self, *, keep: bool) -> None:
        """`push_finished` with an answer of our own: what the sender says next waits for its turn."""
        self._owes_turn = True
        self.push_finished(keep=keep)

    def push_finished(self, *, keep: bool) -> None:
        """The push is over and its answer written. `keep`: the connection may be used again."""
        self._push = None
        if self._state is _CLOSED:
            return
        if not keep:
            if self._state is _WAITING and not self._buffer and not self._is_paused:
                self._close()
            else:
                self._linger()
        elif self._state is _BODY:
            self._skipped = 0
            self.resume_reading()
            self.arm()
        else:
            self._state = _HEAD
            if not self._is_advancing:
                self._next()

    def cut_off(self) -> None:
        """End with a RST: an answer has begun and cannot be completed."""
        self._push = None
        self._cut()

    def hand_over(self, protocol: asyncio.Protocol) -> bytes:
        """The connection has become something else than HTTP: let `protocol` have it, and give what came early."""
        self._timer.cancel()
        early = bytes(self._buffer)
        self._buffer.clear()
        self.resume_reading()
        self.transport.set_protocol(protocol)
        return early

    def upgrade_is_over(self) -> None:
        """What the connection became has ended; `connection_lost` follows."""
        self._push = None
        self._state = _CLOSED

    def _next(self) -> None:
        """Go on with what was kept while the last push was answered."""
        raise NotImplementedError
