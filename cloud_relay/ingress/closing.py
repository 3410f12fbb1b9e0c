"""How a sender's connection ends, and how its reading is paused: what is below requests and answers.

Three endings. `_close` sends what was written, and closes. `_linger` does so too, but goes on reading for a while:
closing with input unread would make the kernel send a RST, which can overtake the answer. `cut_off` sends a RST on
purpose.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import TYPE_CHECKING, Final, cast

from cloud_relay.ingress.access import log_refused
from shared.errors import FAULTS
from shared.http.problem import problem_response
from shared.timers import LazyTimer
from shared.tunnel.endings import cut_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_relay.ingress.body import BodyReader, Pace
    from cloud_relay.ingress.context import Ingress
    from cloud_relay.ingress.push import Push
    from cloud_relay.metrics import ListenerMetrics
    from shared.errors import Fault


class State(enum.Enum):
    """What the next byte from the sender is."""

    HEAD = "head"
    BODY = "body"
    WAITING = "waiting"
    LINGERING = "lingering"
    CLOSED = "closed"


_INTERNAL: Final = FAULTS["internal-error"]
_GONE: Final = FAULTS["sender-gone"]
_INCOMPLETE: Final = FAULTS["incomplete-body"]
_STARTING: Final = FAULTS["starting"]

_FOR_EVER: Final = float("inf")


class EndingConnection(asyncio.Protocol):
    """The lower half of a sender's connection: transport, state, timer, and the endings."""

    __slots__ = (
        "_body", "_buffer", "_is_paused", "_is_write_blocked", "_linger_left", "_pace", "_push", "_rests_since",
        "_state", "_timer", "ingress", "metrics", "settings", "source", "transport",
    )  # fmt: skip

    def __init__(self, ingress: Ingress, metrics: ListenerMetrics, source: str, on_timer: Callable[[], None]) -> None:
        self.ingress = ingress
        self.metrics = metrics
        self.source = source
        self.settings = ingress.context.settings
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # there from connection_made on
        self._state = State.HEAD
        self._push: Push | None = None
        self._buffer = bytearray()
        self._body: BodyReader | None = None
        self._pace: Pace | None = None
        self._linger_left = 0
        self._is_paused = False
        self._is_write_blocked = False
        self._rests_since = _FOR_EVER
        self._timer = LazyTimer(ingress.loop, on_timer)

    @property
    def is_write_blocked(self) -> bool:
        """Whether the sender reads too slowly to be written more to."""
        return self._is_write_blocked

    @property
    def is_reading_paused(self) -> bool:
        """Whether it is us who keep the sender from sending."""
        return self._is_paused

    @property
    def has_kept(self) -> bool:
        """Whether the sender has said more than the request that is under way."""
        return bool(self._buffer)

    @property
    def idle_since(self) -> float:
        """Since when it waits for a request of which nothing has come, infinite while it does not."""
        is_busy = self._state is not State.HEAD or self._buffer or self._is_write_blocked
        return _FOR_EVER if is_busy else self._rests_since

    def make_way(self) -> None:
        """End at once, and without a word: it is idle, and others need its place."""
        self._give_up()

    def give_up(self) -> None:
        """The process ends soon: answer a push that has no answer yet."""
        push = self._push
        if push is not None:
            try:
                push.give_up(_STARTING)
            except Exception as error:  # noqa: BLE001 - reported by on_bug; a bug in one push must harm no other
                self._fail(error)

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self._state is State.HEAD and not self._buffer:
            self._close()

    def abort(self) -> None:
        """End at once, whatever is under way."""
        self._end_push()
        self._cut()

    def pause_reading(self) -> None:
        """Take in no more: there is no room for it."""
        if not self._is_paused and self._state is not State.CLOSED:
            self._is_paused = True
            self.transport.pause_reading()
            if self._pace is not None:
                self._pace.pause(self.ingress.time())

    def resume_reading(self) -> None:
        """There is room again."""
        state = self._state
        if not self._is_paused or state is State.CLOSED or self.transport.is_closing():
            return
        if state is State.WAITING and len(self._buffer) >= self.settings.pipeline_buffer:
            return
        self._is_paused = False
        self.transport.resume_reading()
        if self._pace is not None:
            self._pace.resume(self.ingress.time())

    def _keep(self, data: bytes) -> None:
        """Bytes of later requests: kept for their turn."""
        self._buffer += data
        if len(self._buffer) >= self.settings.pipeline_buffer:
            self.pause_reading()

    def _close(self) -> None:
        """Close once everything is sent; bounded in time, for a sender may never read it."""
        if self._state is not State.CLOSED:
            self._state = State.CLOSED
            self.transport.close()
            self._timer.set(self.ingress.time() + self.settings.linger_time)

    def _linger(self) -> None:
        """The last answer is written: say that no more comes, where that works (not on TLS), and throw input away."""
        transport = self.transport
        self._state = State.LINGERING
        self._buffer.clear()
        self._body = self._pace = None
        self._linger_left = self.settings.linger_bytes
        self.resume_reading()
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        self._timer.set(self.ingress.time() + self.settings.linger_time)

    def _throw_away(self, data: bytes) -> None:
        self._linger_left -= len(data)
        if self._linger_left < 0:
            self._give_up()

    def _give_up(self) -> None:
        """The time for a good end is over."""
        self._state = State.CLOSED
        self.transport.abort()

    def _cut(self) -> None:
        if self._state is not State.CLOSED or not self.transport.is_closing():
            self._state = State.CLOSED
            cut_off(self.transport)

    def _refuse(self, fault: Fault) -> None:
        """Answer a request that never became a push, and close."""
        ingress = self.ingress
        request_id = ingress.new_request_id()
        self.metrics.failed(fault)
        log_refused(ingress, request_id, self.source, fault)
        retry_after = ingress.retry_after() if fault.retry_after else None
        self.transport.write(
            problem_response(fault, request_id, keep_alive=False, retry_after=retry_after, now=time.time())
        )
        self._linger()

    def _end_push(self, fault: Fault | None = None) -> None:
        """The sender is gone, or not worth an answer: end its push, if there is one."""
        push, self._push = self._push, None
        if push is not None:
            try:
                push.abandon(fault or (_INCOMPLETE if self._state is State.BODY else _GONE))
            except Exception as error:  # noqa: BLE001 - as above
                self.ingress.on_bug(error, push.request_id)

    def _fail(self, error: BaseException) -> None:
        """A bug of ours: say so to the sender where that is still possible, and close."""
        push = self._push
        self.ingress.on_bug(error, push.request_id if push is not None else "")
        try:
            if push is not None:
                push.crash()
            elif self._state is State.HEAD:
                self._refuse(_INTERNAL)
            else:
                self.abort()
        except Exception as second:  # noqa: BLE001 - as above
            self.ingress.on_bug(second, "")
            self.abort()
