"""The way back of a push: its answer, from the tunnel to the sender, with back-pressure."""

from __future__ import annotations

from typing import Final

from cloud_relay.health import RelayState
from cloud_relay.ingress.answer import AnswerFraming, AnswerMemo, BadAnswer, interim_head
from cloud_relay.ingress.push_end import PushEnd, PushState
from cloud_relay.ingress.upgraded import UpgradedPush, upgrade_head
from shared.errors import FAULTS
from shared.http.push_head import HeadError, decode_answer

_OPEN, _ANSWERING, _DRAINING, _DONE = PushState.OPEN, PushState.ANSWERING, PushState.DRAINING, PushState.DONE
_UPGRADED: Final = PushState.UPGRADED

_SERVING: Final = RelayState.SERVING
_BAD_ANSWER: Final = FAULTS["target-malformed-answer"]
_UNREAD: Final = FAULTS["incomplete-body"]


class PushAnswer(PushEnd):
    """What a push does with its answer; the answering half of a `StreamHandler`."""

    __slots__ = ()

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """See StreamHandler."""
        try:
            if self._state is not _OPEN:
                return
            if interim:
                self._pass_interim(head)
            else:
                self._answer(head, body, end)
        except Exception as error:  # noqa: BLE001 - reported by on_bug
            self._on_bug(error)

    def on_data(self, data: bytes, end: bool) -> None:
        """See StreamHandler."""
        try:
            if self._state is _ANSWERING:
                self._pass_data(data, end)
        except Exception as error:  # noqa: BLE001 - as above
            self._on_bug(error)

    def on_drained(self) -> None:
        """The sender has read what it was sent."""
        owed, self._owed = self._owed, 0
        if owed and self._stream is not None:
            self._progress = self._ingress.time()
            self._stream.consumed(owed)
        if self._state is _DRAINING:
            self._finish_answer()

    def _pass_interim(self, raw: bytes) -> None:
        try:
            data = interim_head(decode_answer(raw), self.head)
        except HeadError:
            self._fail(_BAD_ANSWER)
            return
        if data and not self._connection.is_write_blocked:
            self._connection.transport.write(data)

    def _answer(self, raw: bytes, body: bytes, end: bool) -> None:
        head, connection = self.head, self._connection
        keep_alive = head.keep_alive and self._has_whole_body and self._ingress.state is _SERVING
        if head.upgrade is not None and self._asks_upgrade():
            if self._answer_upgrade(raw, body, end):
                return
            # What the sender said already may be frames rather than a request: it is neither.
            keep_alive = keep_alive and not connection.has_kept
        framing = self._framing = AnswerFraming(keep_alive=keep_alive)
        memo = connection.last_answer
        data = memo.read(raw, body, head, keep_alive) if end and memo is not None else None
        if memo is not None and data is not None:
            self.status = memo.status
        else:
            try:
                answer = decode_answer(raw)
                data = framing.head(answer, body, end, head)
            except (HeadError, BadAnswer):
                self._framing = None
                self._fail(_BAD_ANSWER)
                return
            self.status = answer.status
            if end and len(raw) <= AnswerMemo.MAX_SIZE and framing.keep_alive is keep_alive:
                connection.last_answer = AnswerMemo(raw, body, data, head, answer.status, keep_alive)
        self._drop_pieces()
        self.fault = None
        self._state = _ANSWERING
        self.answered_at = self._progress = now = self._ingress.time()
        if self.attempt > 1 or self._context.health.doubts:
            self._witness(now)
        connection.transport.write(data)
        self._account(len(body), end)
        if self._state is not _DONE:
            self.due = now + self._context.settings.idle_timeout
            connection.arm()

    def _witness(self, now: float) -> None:
        """What the answer says of earlier tries, and of the target, where that is of interest."""
        route, session, health = self.route, self.session, self._context.health
        if route is None or session is None:
            return
        if self.attempt > 1:
            route.metrics.mended += 1
        if health.doubts:
            health.delivered(route.key, session.identity.connector, now)

    def _answer_upgrade(self, raw: bytes, body: bytes, end: bool) -> bool:
        """Make a stream of bytes of the push, if the target agrees; False if its answer is an ordinary one."""
        stream, route, sender, connection = self._stream, self.route, self.sender, self._connection
        try:
            answer = decode_answer(raw)
        except HeadError:
            return False  # said where all answers are judged
        if stream is None or route is None or sender is None:
            return False
        if answer.status != 101:
            stream.send(b"", end=True)  # it was left open for what now does not come
            return False
        data = upgrade_head(answer.headers)
        upgraded = self._upgraded = UpgradedPush(self, route, sender, connection, self._ingress, stream)
        self._state = _UPGRADED
        self._context.limits.stays(sender)
        self._drop_pieces()
        self.fault = None
        self.status = 101
        self.due = 0.0
        self.answered_at = self._ingress.time()
        connection.transport.write(data)
        upgraded.start(body, end)
        return True

    def _pass_data(self, data: bytes, end: bool) -> None:
        framing = self._framing
        if framing is None:
            return
        try:
            framed = framing.more(data, end)
        except BadAnswer:
            self._fail(_BAD_ANSWER)
            return
        self._progress = self._ingress.time()
        if framed:
            self._connection.transport.write(framed)
        self._account(len(data), end)

    def _account(self, size: int, end: bool) -> None:
        """`size` bytes of the answer were written: give their credit back once the sender takes them."""
        self.bytes_out += size
        if self._connection.is_write_blocked:
            self._owed += size
            if end:
                self._state = _DRAINING
            return
        stream = self._stream
        if size and stream is not None:
            stream.consumed(size)
        if end:
            self._finish_answer()

    def _finish_answer(self) -> None:
        if not self._has_whole_body:  # an early answer: the rest of the body is of no use
            self._reset_stream(_UNREAD)
        framing = self._framing
        self._settle()
        self._connection.push_finished(keep=framing is not None and framing.keep_alive)
