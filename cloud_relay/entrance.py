"""The way in for connectors: from a TCP connection to the moment in which somebody takes it over, or it is refused.

arrive ─▶ HandshakeGate ─▶ first bytes, HandshakeTurns ─▶ TLS ─▶ HTTP request ─▶ House.judge ─▶ 101 ─▶ Welcome
                                                                   └───────▶ 401, 403, … as a problem, before any
                                                                             state is made
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from cloud_relay.admit import Refusal
from cloud_relay.handshake_gate import Arrival, HandshakeGate
from cloud_relay.handshake_turns import HandshakeTurns
from cloud_relay.sources import source_key
from shared.errors import FAULTS, Fault
from shared.http.problem import problem_response
from shared.logs import get_logger, log_limited
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket_server import ServerTransport, UpgradeRequest

_INVALID_PURPOSE: Final = 26
"""X509_V_ERR_INVALID_PURPOSE: OpenSSL itself turns away a certificate that is for servers only."""

_POLLRDHUP: Final[int | None] = getattr(select, "POLLRDHUP", None)

MAX_EARLY: Final = 32 * 1024
"""Bytes of one connection that wait with it: twice a TLS record, where a ClientHello is a part of one."""

_CHALLENGE: Final = ((b"WWW-Authenticate", b'Mutual-TLS realm="qanat"'),)

log = get_logger("relay.tunnels")


Welcome = Callable[[ServerTransport], MessageReceiver]
"""Takes over a connection whose handshake is done."""


class House(Protocol):
    """Whose entrance it is."""

    @property
    def tls(self) -> ssl.SSLContext:
        """What the next handshake is made with."""

    def judge(self, request: UpgradeRequest, source: str) -> Welcome | Refusal:
        """Whether and by whom a client is taken. What the Welcome needs is held for it until it is called or dropped;
        nothing is held where it is dropped."""


@dataclass(slots=True)
class TunnelCounts:
    """What was seen since the start: `refused` by code of the catalogue, `failed` ended without an answer of ours."""

    accepted: int = 0
    failed: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Entrance:
    """All handshakes in progress at one listener."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        house: House,
        gate: HandshakeGate,
        time_limit: float,
        wall_clock: Callable[[], float],
    ) -> None:
        self.gate = gate
        self.counts = TunnelCounts()
        self._loop = loop
        self._house = house
        self._buffers = ReadBuffers()
        self._time_limit = time_limit
        self._wall_clock = wall_clock
        self._turns = HandshakeTurns(loop)
        self._waiting: set[_Doorstep] = set()
        self._knocking: set[ServerTransport] = set()

    def __repr__(self) -> str:
        return f"<Entrance {len(self._knocking)} handshakes, {self.counts}>"

    def protocol(self) -> asyncio.Protocol:
        """What a server makes for each TCP connection."""
        return _Doorstep(self)

    def close(self) -> None:
        """End all handshakes, those that have not begun too."""
        self.gate.drop_waiting()
        for doorstep in list(self._waiting):
            doorstep.abort()
        for transport in list(self._knocking):
            transport.abort()

    # --- the steps of one connection, called by what is below

    def admitted(self, doorstep: _Doorstep) -> asyncio.TimerHandle:
        """The gate has let a connection in, which waits for its first bytes and then for its turn."""
        self._waiting.add(doorstep)
        return self._loop.call_later(self._time_limit, doorstep.abort)

    def queue(self, source: str, doorstep: _Doorstep) -> None:
        """Have it take its turn when that has come."""
        self._turns.join(source, doorstep)

    def waits(self, doorstep: _Doorstep) -> bool:
        """Whether a connection still waits."""
        return doorstep in self._waiting

    def has_waited(self, doorstep: _Doorstep) -> bool:
        """Whether a connection was one of those that wait; it is none of them any more."""
        is_there = doorstep in self._waiting
        self._waiting.discard(doorstep)
        return is_there

    def gone(self, source: str, peer: str, reason: str) -> None:
        """A connection that the gate had let in has ended before its turn."""
        self.gate.leave(source)
        self.counts.failed += 1
        log_limited(log, "info", "handshake", "no handshake", peer=peer, error=reason)

    def begin(self, raw: asyncio.Transport, source: str, peer: str, early: bytes) -> None:
        """Start the handshake of a connection whose turn it is; `early` came before that.

        Who gave up waiting for it costs nothing: where a crowd comes faster than it can be taken, the relay would else
        do nothing but handshakes with those who have left.
        """
        if raw.is_closing() or has_hung_up(raw.get_extra_info("socket")):
            raw.abort()
            self.gone(source, peer, "it did not wait for its turn")
            return
        transport: ServerTransport | None = None
        try:
            knock = _Knock(self, source, peer)
            transport = ServerTransport(self._loop, self._house.tls, self._buffers, knock, self._time_limit)
            self._knocking.add(transport)
            raw.set_protocol(transport)
            transport.connection_made(raw)
            _feed(transport, early)
            raw.resume_reading()
        except Exception as error:  # its place may not be lost for good
            log.error("a handshake could not begin, by a bug of ours", exc_info=error)
            raw.abort()
            if transport is None:
                self.gate.leave(source)
            else:
                self.left(transport, source)

    def judge(self, request: UpgradeRequest, source: str) -> Welcome | Refusal:
        """The house's word."""
        return self._house.judge(request, source)

    def refused(self, fault: Fault, detail: str, peer: str) -> bytes:
        """Count and log a refusal; the answer to send."""
        self.counts.refused[fault.code] = self.counts.refused.get(fault.code, 0) + 1
        log_limited(log, "warning", fault.code, "tunnel refused", code=fault.code, peer=peer, detail=detail)
        return problem_response(
            fault, "", keep_alive=False, detail=detail or None, now=self._wall_clock(),
            extra_headers=_CHALLENGE if fault.status == 401 else (),
        )  # fmt: skip

    def failed(
        self, transport: ServerTransport, source: str, error: BaseException | None, *, was_refused: bool
    ) -> None:
        """A handshake ended without anybody who takes it."""
        self.left(transport, source)
        if was_refused:
            return
        self.counts.failed += 1
        if isinstance(error, ssl.SSLCertVerificationError):
            code = "certificate-wrong-usage" if error.verify_code == _INVALID_PURPOSE else "certificate-foreign"
            self.refused(FAULTS[code], error.verify_message, transport.describe())
        else:
            log_limited(
                log, "info", "handshake", "no handshake", peer=transport.describe(), error=str(error or "closed")
            )

    def left(self, transport: ServerTransport, source: str) -> None:
        """A handshake is over, however it ended."""
        if transport in self._knocking:
            self._knocking.remove(transport)
            self.gate.leave(source)


def has_hung_up(sock: socket.socket | None) -> bool:
    """Whether the other side has closed a connection of which nothing has been read yet. Without POLLRDHUP, which only
    Linux has, nobody can tell."""
    if sock is None or _POLLRDHUP is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _POLLRDHUP)
    return bool(poll.poll(0))


def _feed(transport: ServerTransport, data: bytes) -> None:
    """What was read before its turn."""
    while data:
        buffer = transport.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        data = data[size:]
        transport.buffer_updated(size)


class _Doorstep(asyncio.Protocol):
    """A TCP connection before its turn: next to nothing is read from it.

    uvloop cannot be told not to read before it has begun to; so the first bytes that come are kept, and then it is
    told.
    """

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._raw = cast(asyncio.Transport, None)  # there from connection_made on
        self._peer = self._source = ""
        self._early = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._is_queued = False

    def abort(self) -> None:
        """Wait no longer."""
        self._raw.abort()

    # --- Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = self._raw = cast(asyncio.Transport, transport)
        raw.pause_reading()
        name = raw.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) else "unknown"
        self._source = source_key(self._peer)
        self._entrance.gate.enter(Arrival(self._source, self._start, self.abort))

    def data_received(self, data: bytes) -> None:
        self._early += data
        self._raw.pause_reading()
        if len(self._early) > MAX_EARLY:
            self._raw.abort()
        elif self._deadline is not None:
            self._queue()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave():
            self._entrance.gone(self._source, self._peer, str(exc or "closed"))

    # --- within

    def _start(self) -> None:
        """The gate has a place for it."""
        self._deadline = self._entrance.admitted(self)
        if self._early or self._raw.is_closing():
            self._queue()
        else:
            self._raw.resume_reading()

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._entrance.queue(self._source, self)

    @property
    def wants_turn(self) -> bool:
        """See Waiter."""
        return self._entrance.waits(self)

    def take_turn(self) -> None:
        """See Waiter."""
        if self._leave():
            self._entrance.begin(self._raw, self._source, self._peer, self._early)

    def _leave(self) -> bool:
        if self._deadline is not None:
            self._deadline.cancel()
        return self._entrance.has_waited(self)


class _Knock:
    """The Acceptor of one connection."""

    __slots__ = ("_entrance", "_peer", "_source", "_was_refused", "_welcome")

    def __init__(self, entrance: Entrance, source: str, peer: str) -> None:
        self._entrance = entrance
        self._source = source
        self._peer = peer
        self._welcome: Welcome | None = None
        self._was_refused = False

    def decide(self, request: UpgradeRequest) -> bytes | None:
        self._peer = request.peer
        verdict = self._entrance.judge(request, self._source)
        if isinstance(verdict, Refusal):
            self._was_refused = True
            return self._entrance.refused(verdict.fault, verdict.detail, request.peer)
        self._welcome = verdict
        return None

    def refuse(self, fault_code: str, detail: str) -> bytes:
        self._was_refused = True
        return self._entrance.refused(FAULTS[fault_code], "", self._peer)

    def opened(self, transport: ServerTransport) -> MessageReceiver:
        if self._welcome is None:
            raise RuntimeError("opened without having been admitted")
        self._entrance.left(transport, self._source)
        return self._welcome(transport)

    def failed(self, transport: ServerTransport, error: BaseException | None) -> None:
        self._entrance.failed(transport, self._source, error, was_refused=self._was_refused)
