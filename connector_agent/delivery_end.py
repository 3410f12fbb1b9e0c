"""A delivery's fields, and its end: the base of `delivery`, where the theory of operation stands.

Whatever ends a delivery goes through `_end`, once: there everything that it held is given back, and it is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector_agent.plan import Plan
    from connector_agent.recorder import Recorder
    from connector_agent.targets import Target
    from connector_agent.upgraded import UpgradedDelivery
    from connector_agent.upstream.connection import UpstreamConnection
    from shared.http.push_head import PushHead
    from shared.protocol import StreamEnd


class DeliveryEnd:
    """A push under way. `status` is the target's or 0, `code` that of our error or "", times are the recorder's.

    `given_at`: when the target was given what there was of the push, or the last of it; `waited`: seconds without a
    connection to it. `was_written`: something of it went to the target, so that nobody else may have it.
    """

    __slots__ = (
        "_connection",
        "_held",
        "_interims",
        "_is_answered",
        "_is_chunked",
        "_is_discarding",
        "_is_ended",
        "_is_retried",
        "_is_waiting",
        "_keep_alive",
        "_now",
        "_recorder",
        "_stream",
        "_unreturned",
        "_upgraded",
        "code",
        "detail",
        "first_byte_at",
        "given_at",
        "is_over",
        "plan",
        "push",
        "received",
        "sent",
        "started_at",
        "status",
        "target",
        "waited",
        "was_reused",
        "was_written",
    )  # fmt: skip

    def __init__(self, stream: StreamEnd, push: PushHead, plan: Plan, target: Target, recorder: Recorder) -> None:
        self.push = push
        self.plan = plan
        self.target = target
        self.code = ""
        self.detail = ""
        self.status = 0
        self.received = 0
        self.sent = 0
        self._now = now = recorder.now
        self.started_at = now()
        self.first_byte_at = 0.0
        self.given_at = 0.0
        self.waited = 0.0
        self.is_over = False
        self.was_reused = False
        self._stream = stream
        self._recorder = recorder
        self._connection: UpstreamConnection | None = None
        self._held: list[bytes] = []
        self._interims = 0
        self._unreturned = 0
        self._upgraded: UpgradedDelivery | None = None
        self._is_answered = False
        self._is_chunked = False
        self._is_discarding = False
        self._is_ended = False
        self._is_retried = False
        self._is_waiting = False
        self._keep_alive = False
        self.was_written = False

    @property
    def now(self) -> Callable[[], float]:
        """The recorder's clock."""
        return self._now

    def _return_credit(self) -> None:
        unreturned = self._unreturned
        if unreturned:
            self._unreturned = 0
            self._stream.consumed(unreturned)

    def _arm(self, connection: UpstreamConnection) -> None:
        """Set the connection's deadline: who has to do something, and until when."""
        timeouts = self.target.timeouts
        if self._is_answered:
            when = self._now() + timeouts.idle if connection.is_reading else 0.0
        else:
            when = 0.0
            if connection.is_paused:
                when = self._now() + timeouts.idle
            elif self._is_ended:
                when = self._now() + timeouts.first_byte
            deadline = self._stream.deadline
            if deadline and (not when or deadline < when):
                when = deadline
        connection.set_deadline(when)

    def _give_up(self, code: str, detail: str = "") -> None:
        """Reset the stream with this fault. Only what was never written is refused rather than lost."""
        self.detail = detail
        self._return_credit()
        self._stream.reset(FAULTS[code].wire, refused=not self.was_written)
        self._end(code, is_known=False)

    def end_upgraded(self, code: str, *, received: int, sent: int) -> None:
        """The WebSocket that the push became is over, and its connection with it."""
        self.received = received
        self.sent = sent
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.let_go()
        self._end(code, is_known=False)
        self._upgraded = None

    def _end(self, code: str, *, is_known: bool) -> None:
        """The delivery is over. `is_known`: nothing unusual happened, the connection may serve another push."""
        if self.is_over:
            return
        self.is_over = True
        self.code = code
        if self._is_waiting:
            self._is_waiting = False
            self.target.pool.cancel(self)  # type: ignore[arg-type]  # every one is a Delivery
        self._held.clear()
        self._return_credit()
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release(keep=is_known and self._is_ended and self._keep_alive and not self._is_discarding)
        self._recorder.record(self, self._now())  # type: ignore[arg-type]  # likewise; a cast would be a call

    def __repr__(self) -> str:
        state = "over" if self.is_over else "waiting" if self._is_waiting else "under way"
        return (
            f"<Delivery {self.push.request_id} to {self.target.name} {state} received={self.received} sent={self.sent} "
            f"status={self.status} code={self.code!r}>"
        )
