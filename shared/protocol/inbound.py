"""What each frame of a peer does to a connection, and what it may not do.

One function a kind of frame. A violation ends in `Connection.fail`; a handler of ours that raises loses its stream,
never the tunnel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from shared.errors import FAULTS
from shared.protocol import frames
from shared.protocol.credit import TunnelWindow
from shared.protocol.driver import State
from shared.protocol.frames import (
    ANSWER,
    ANSWER_FIXED,
    CREDIT,
    DATA,
    DRAIN,
    END,
    HELLO,
    INTERIM,
    OPEN,
    OPEN_FIXED,
    PING,
    PONG,
    REFUSED,
    RESET,
    TARGETS,
)  # fmt: skip
from shared.protocol.hello import BadHello, Hello, common_version, parse_targets
from shared.protocol.quarantine import DEAD_ON_ARRIVAL, HELD_KINDS
from shared.protocol.renewal import RENEWAL_FRAMES, receive_renewal
from shared.protocol.stream import Event, Stream

if TYPE_CHECKING:
    from shared.protocol.connection import Connection

RELAY_MEASURES_EVERY: Final = 60.0
"""Seconds after which the relay measures the path's round trip anew, where it had no other cause to ping."""

_DEADLINE: Final = FAULTS["deadline-exceeded"].wire
_REFUSED: Final = FAULTS["tunnel-refused"].wire


def receive_frame(c: Connection, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    if c.state is State.GREETING:
        greet(c, kind, payload)
    elif c.quarantine is not None and kind in HELD_KINDS:
        c.budget.used += len(payload)
        if not c.quarantine.add(kind, flags, stream_id, payload):
            c.fail("protocol-error", "more than its credit from a peer that owes a PONG")
        elif c.budget.is_spent:  # no stream of it can be ended alone: none has begun
            c.fail("silent", "the memory budget is spent before the peer's PONG")
    elif kind == DATA:
        on_data(c, flags, stream_id, payload)
    elif kind == ANSWER:
        on_answer(c, flags, stream_id, payload)
    elif kind == OPEN:
        on_open(c, flags, stream_id, payload)
    elif kind == RESET:
        on_reset(c, flags, stream_id, payload)
    elif kind == HELLO:
        c.fail("protocol-error", "a second HELLO")
    elif (parser := _TUNNEL_FRAMES.get(kind)) is not None:
        parser(c, flags, stream_id, payload)
    elif kind in RENEWAL_FRAMES:
        receive_renewal(c, kind, stream_id, payload)


def greet(c: Connection, kind: int, payload: bytes) -> None:
    if kind != HELLO:
        if kind in frames.NAMES:
            c.fail("protocol-error", f"{frames.NAMES[kind]} before HELLO")
        return
    try:
        peer = Hello.parse(payload)
    except BadHello as error:
        c.fail("protocol-error", f"HELLO: {error}")
        return
    version = common_version(c.hello, peer)
    if version is None:
        c.fail("version-mismatch", f"ours {c.hello.versions}, theirs {peer.versions[:8]}")
        return
    c.version = version
    c.peer = peer
    c.state = State.OPEN
    c.max_streams = peer.max_streams
    c.takes_pushes = c.takes_pushes and not peer.renew_only
    c.judge()
    c.window = TunnelWindow(c.settings, min(c.settings.tunnel_window_max, peer.tunnel_credit), c.now)
    c.outbox.window = c.window
    if not c.is_relay:
        c.clock.on_hello(peer.clock, c.now)
        c.ping(c.now)
    c.schedule(c.now)
    c.handler.on_ready(peer)


def on_open(c: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    size = len(payload)
    if not c.takes_pushes or stream_id <= c.table.last_id or size < 10:
        c.fail("protocol-error", f"OPEN out of place (stream {stream_id})")
        return
    deadline, head_size = OPEN_FIXED.unpack_from(payload)
    body_at = 10 + head_size
    if body_at > size:
        c.fail("protocol-error", "OPEN: the head is cut short")
        return
    c.table.last_id = stream_id
    body = payload[body_at:]
    size -= body_at
    c.uncredited += size
    local_deadline = c.clock.to_local(deadline) if deadline else 0.0
    if local_deadline and local_deadline <= c.now:
        c.control(frames.reset(stream_id, _DEADLINE, refused=True))
        return
    peer = c.peer
    if flags & DEAD_ON_ARRIVAL:
        return
    if len(c.table.open) >= c.hello.max_streams or peer is None:
        c.control(frames.reset(stream_id, _REFUSED, refused=True))
        return
    stream = Stream(c, peer.stream_credit, is_opener=False, now=c.now)
    stream.id = stream_id
    stream.deadline = local_deadline
    stream.was_sent = True
    stream.held_head = head_size
    c.budget.used += head_size
    c.table.open[stream_id] = stream
    if not c.liveness.is_busy:
        c.become_busy(c.now)
    is_end = bool(flags & END)
    if not c.accept_body(stream, Event.DATA_END if is_end else Event.DATA, size):
        return
    try:
        c.handler.on_stream(stream, payload[10:body_at], body, is_end)
    except Exception as error:  # noqa: BLE001  # its bug costs its own stream, never the tunnel
        c.on_handler_error(stream, error)


def on_answer(c: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    size = len(payload)
    if not c.is_relay or size < 2:
        c.fail("protocol-error", f"ANSWER out of place (stream {stream_id})")
        return
    (head_size,) = ANSWER_FIXED.unpack_from(payload)
    body_at = 2 + head_size
    if body_at > size:
        c.fail("protocol-error", "ANSWER: the head is cut short")
        return
    size -= body_at
    stream = c.find(stream_id, size)
    if stream is None:
        return
    is_end, is_interim = bool(flags & END), bool(flags & INTERIM)
    if is_interim and (is_end or size):
        c.fail("protocol-error", "an interim ANSWER with a body or an end")
        return
    event = Event.INTERIM if is_interim else Event.ANSWER_END if is_end else Event.ANSWER
    if not c.accept_body(stream, event, size):
        return
    if is_end and stream.is_done:
        c.finish(stream)
    try:
        stream.handler.on_answer(payload[2:body_at], payload[body_at:], is_end, is_interim)
    except Exception as error:  # noqa: BLE001  # its bug costs its own stream, never the tunnel
        c.on_handler_error(stream, error)


def on_data(c: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    stream = c.find(stream_id, len(payload))
    if stream is None:
        return
    is_end = bool(flags & END)
    if not c.accept_body(stream, Event.DATA_END if is_end else Event.DATA, len(payload)):
        return
    if is_end and stream.is_done:
        c.finish(stream)
    try:
        stream.handler.on_data(payload, is_end)
    except Exception as error:  # noqa: BLE001  # its bug costs its own stream, never the tunnel
        c.on_handler_error(stream, error)


def on_reset(c: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if len(payload) < 2:
        c.fail("protocol-error", "RESET is cut short")
        return
    stream = c.find(stream_id, 0)
    if stream is not None:
        (wire_code,) = frames.U16.unpack_from(payload)
        c.forget(stream)
        c.end_stream(stream, wire_code, refused=bool(flags & REFUSED))
        c.check_drained()


def on_credit(c: Connection, _flags: int, stream_id: int, payload: bytes) -> None:
    if len(payload) < 4:
        c.fail("protocol-error", "CREDIT is cut short")
        return
    (increment,) = frames.U32.unpack_from(payload)
    c.outbox.stalls.now = c.now
    if not stream_id:
        if not c.window.on_credit(increment, c.now):
            c.fail("protocol-error", "more credit than was used")
            return
        c.outbox.on_tunnel_credit()
        c.announce()
        return
    stream = c.find(stream_id, 0)
    if stream is not None:
        stream.credit = min(stream.credit + increment, 1 << 40)
        c.on_queued(stream, 0)


def on_ping(c: Connection, _flags: int, _stream_id: int, payload: bytes) -> None:
    if len(payload) < 8:
        c.fail("protocol-error", "PING is cut short")
        return
    c.outbox.set_pong(frames.pong(frames.U64.unpack_from(payload)[0], int(c.now * 1e6)))
    if c.is_relay and c.now - c.liveness.last_ping > RELAY_MEASURES_EVERY:
        c.ping(c.now)  # in one message with the PONG; the connector is awake, as we are
    c.announce()


def on_pong(c: Connection, _flags: int, _stream_id: int, payload: bytes) -> None:
    if len(payload) < 16:
        c.fail("protocol-error", "PONG is cut short")
        return
    token, clock = frames.U64X2.unpack_from(payload)
    if token / 1e6 > c.now + 1e-3:
        c.fail("protocol-error", "PONG to a ping that was never sent")
        return
    c.clock.on_pong(token / 1e6, clock, c.now)
    quarantine = c.quarantine
    if quarantine is not None and token >= quarantine.until:
        c.leave_quarantine()
        for frame in quarantine.release():
            if c.state is State.OPEN:
                receive_frame(c, *frame)


def on_drain(c: Connection, flags: int, _stream_id: int, payload: bytes) -> None:
    if len(payload) < 4:
        c.fail("protocol-error", "DRAIN is cut short")
        return
    if flags & frames.ACK and not c.is_relay:
        c.drain_is_acked = True
        c.check_drained()
        return
    if c.peer_is_draining:
        return
    timeout = frames.U32.unpack_from(payload)[0] / 1000
    if flags & frames.REPLACE and not c.is_relay:
        c.handler.on_replace(timeout)
        return
    c.peer_is_draining = True
    c.judge()
    if c.is_relay:
        # What waits in the outbox was opened before; ahead of it this would be a lie. So it goes to another tunnel.
        for stream in list(c.table.waiting):
            c.forget(stream)
            c.end_stream(stream, _REFUSED, refused=True)
        c.control(frames.drain(0, ack=True))
    c.handler.on_drain(timeout)


def on_targets(c: Connection, _flags: int, _stream_id: int, payload: bytes) -> None:
    if not c.is_relay:
        c.fail("protocol-error", "TARGETS from the relay")
        return
    try:
        targets = parse_targets(payload)
    except BadHello as error:
        c.fail("protocol-error", f"TARGETS: {error}")
        return
    c.handler.on_targets(targets)


_TUNNEL_FRAMES: Final[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
    PING: on_ping,
    PONG: on_pong,
    CREDIT: on_credit,
    DRAIN: on_drain,
    TARGETS: on_targets,
}
