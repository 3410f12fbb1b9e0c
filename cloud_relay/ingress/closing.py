"""How a sender's connection ends, and how its reading is paused: what is below requests and answers.

Three endings. `_close` sends what was written, and closes. `_linger` does so too, but goes on reading for a while:
closing with input unread would make the kernel send a RST, which can overtake the answer. `cut_off` sends a RST on
purpose.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from shared.timers import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_relay.ingress.body import BodyReader, Pace
    from cloud_relay.ingress.context import Ingress


class State(enum.Enum):
    """What the next byte from the sender is."""

    HEAD = "head"
    BODY = "body"
    WAITING = "waiting"
    LINGERING = "lingering"
    CLOSED = "closed"


_NO_LINGER: Final = struct.pack("ii", 1, 0)


def cut_off(transport: asyncio.Transport) -> None:
    """End with a TCP RST, so that what was sent so far can never pass for a whole answer.

    `abort` alone would send FIN, which for an answer that lasts until the connection closes means: complete.
    Under TLS the missing close_notify says the same; the RST makes sure where the sender does not look.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        except OSError:  # gone already
            pass
    transport.abort()


class EndingConnection(asyncio.Protocol):
    """The lower half of a sender's connection: transport, state, timer, and the endings."""

    __slots__ = (
        "_body", "_buffer", "_is_paused", "_is_write_blocked", "_linger_left", "_pace", "_state", "_timer", "ingress",
        "settings", "transport",
    )  # fmt: skip

    def __init__(self, ingress: Ingress, on_timer: Callable[[], None]) -> None:
        self.ingress = ingress
        self.settings = ingress.context.settings
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # there from connection_made on
        self._state = State.HEAD
        self._buffer = bytearray()
        self._body: BodyReader | None = None
        self._pace: Pace | None = None
        self._linger_left = 0
        self._is_paused = False
        self._is_write_blocked = False
        self._timer = LazyTimer(ingress.loop, on_timer)

    @property
    def is_write_blocked(self) -> bool:
        """Whether the sender reads too slowly to be written more to."""
        return self._is_write_blocked

    @property
    def is_reading_paused(self) -> bool:
        """Whether it is us who keep the sender from sending."""
        return self._is_paused

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self._state is State.HEAD and not self._buffer:
            self._close()

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
