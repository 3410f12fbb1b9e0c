"""The frames of the tunnel: eight bytes of header, then the payload. Several of them make one message.

     0        1        2                 4                                   8
    +--------+--------+-----------------+-----------------------------------+----------
    | type   | flags  | payload length  | stream id (0: the tunnel itself)  | payload …
    +--------+--------+-----------------+-----------------------------------+----------

All integers are big-endian. A frame never crosses a message; a message is at most 64 KiB, so the length fits 16 bits.
Unknown types are skipped, unknown flags ignored. docs/protocol.md tells the same to whoever writes another connector.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_MESSAGE: Final = 64 * 1024
"""Bytes. Larger messages pin memory in TLS buffers for good, and what was handed over cannot be overtaken."""

FULL_MESSAGE: Final = MAX_MESSAGE - 16
"""Bytes at which we call our own messages full: with the WebSocket's header they fill four TLS records, not five."""

HEADER_SIZE: Final = 8
MAX_PAYLOAD: Final = MAX_MESSAGE - HEADER_SIZE
MAX_STREAM_ID: Final = 0xFFFF_FFFF

HELLO: Final = 0x01
OPEN: Final = 0x02
ANSWER: Final = 0x03
DATA: Final = 0x04
RESET: Final = 0x05
CREDIT: Final = 0x06
PING: Final = 0x07
PONG: Final = 0x08
DRAIN: Final = 0x09
TARGETS: Final = 0x0A
RENEW: Final = 0x0B
CERTIFICATE: Final = 0x0C
TRUST: Final = 0x0D
HINT: Final = 0x0E

NAMES: Final = {
    HELLO: "HELLO", OPEN: "OPEN", ANSWER: "ANSWER", DATA: "DATA", RESET: "RESET", CREDIT: "CREDIT",
    PING: "PING", PONG: "PONG", DRAIN: "DRAIN", TARGETS: "TARGETS",
    RENEW: "RENEW", CERTIFICATE: "CERTIFICATE", TRUST: "TRUST", HINT: "HINT",
}  # fmt: skip

END: Final = 0x01
"""On OPEN, ANSWER and DATA: the last of this direction (half-close)."""
INTERIM: Final = 0x02
"""On ANSWER: an informational answer (1xx); the final one is still to come."""
REFUSED: Final = 0x02
"""On RESET: nothing of this push was sent to the target."""
ACK: Final = 0x01
"""On DRAIN, from the relay: no OPEN comes after this."""
REPLACE: Final = 0x02
"""On DRAIN, from the relay: open a new tunnel; this one takes pushes as before until a DRAIN without REPLACE comes."""

MAX_HEAD: Final = 40 * 1024
"""Bytes of the head in OPEN or ANSWER: HTTP's 32 KiB and what we add. It must fit a message that keeps a place for
bulk."""

HEADER: Final = struct.Struct(">BBHI")
OPEN_FIXED: Final = struct.Struct(">QH")
ANSWER_FIXED: Final = struct.Struct(">H")
OPEN_START: Final = struct.Struct(">BBHIQH")
ANSWER_START: Final = struct.Struct(">BBHIH")
"""A frame's header with what is fixed behind it, packed at once: nearly every frame is one of these."""
_RESET: Final = struct.Struct(">BBHIH")
_CREDIT: Final = struct.Struct(">BBHII")
_PING: Final = struct.Struct(">BBHIQ")
PING_SIZE: Final = _PING.size
_PONG: Final = struct.Struct(">BBHIQQ")
_DRAIN: Final = struct.Struct(">BBHII")

U16: Final = struct.Struct(">H")
U32: Final = struct.Struct(">I")
U64: Final = struct.Struct(">Q")
U64X2: Final = struct.Struct(">QQ")


def reset(stream_id: int, wire_code: int, *, refused: bool) -> bytes:
    """RESET: this stream is over in both directions; `wire_code` is a number of the catalogue."""
    return _RESET.pack(RESET, REFUSED if refused else 0, 2, stream_id, wire_code)


def credit(stream_id: int, increment: int) -> bytes:
    """CREDIT: the peer may send `increment` more bytes, on the stream or (0) in the tunnel."""
    return _CREDIT.pack(CREDIT, 0, 4, stream_id, increment)


def ping(token: int) -> bytes:
    """PING: asks for a PONG with the same token. Tokens of one side grow."""
    return _PING.pack(PING, 0, 8, 0, token)


def pong(token: int, clock: int) -> bytes:
    """PONG: the token, and the answering side's clock in microseconds."""
    return _PONG.pack(PONG, 0, 16, 0, token, clock)


def drain(timeout: float, *, ack: bool = False, replace: bool = False) -> bytes:
    """DRAIN: this tunnel closes when its streams are done, within `timeout` seconds. From the relay with ACK: no
    more OPEN; with REPLACE: not yet, but a new tunnel is wanted."""
    flags = (ACK if ack else 0) | (REPLACE if replace else 0)
    return _DRAIN.pack(DRAIN, flags, 4, 0, min(int(timeout * 1000), 0xFFFF_FFFF))


def tunnel_frame(kind: int, payload: bytes) -> bytes:
    """A JSON object about the tunnel as a whole: HELLO, TARGETS, or one of the renewal's. ValueError if too large."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{NAMES[kind]} of {len(payload)} bytes does not fit a frame of {MAX_PAYLOAD}")
    return HEADER.pack(kind, 0, len(payload), 0) + payload


def open_head(deadline: int, head: bytes) -> bytes:
    """The start of OPEN's payload: the deadline in microseconds of the relay's clock (0: none), then the head; the
    body follows."""
    if len(head) > MAX_HEAD:
        raise ValueError(f"a head of {len(head)} bytes is larger than {MAX_HEAD}")
    return OPEN_FIXED.pack(deadline, len(head)) + head


def answer_head(head: bytes) -> bytes:
    """The start of ANSWER's payload: the head; the body follows."""
    if len(head) > MAX_HEAD:
        raise ValueError(f"a head of {len(head)} bytes is larger than {MAX_HEAD}")
    return ANSWER_FIXED.pack(len(head)) + head


class Frame(NamedTuple):
    """A frame for tests and the debug log; the connection itself makes none."""

    type: int
    flags: int
    stream_id: int
    payload: bytes

    def __str__(self) -> str:
        name = NAMES.get(self.type, f"0x{self.type:02x}")
        flags = f" flags={self.flags:#x}" if self.flags else ""
        return f"{name} stream={self.stream_id}{flags} [{len(self.payload)} bytes]"

    def serialize(self) -> bytes:
        """The frame's bytes."""
        return HEADER.pack(self.type, self.flags, len(self.payload), self.stream_id) + self.payload


def parse(message: bytes) -> Iterator[Frame]:
    """The frames of a message. Raises ValueError where it is cut short."""
    position = 0
    while position < len(message):
        if len(message) - position < HEADER_SIZE:
            raise ValueError("truncated frame header")
        kind, flags, length, stream_id = HEADER.unpack_from(message, position)
        position += HEADER_SIZE
        if len(message) - position < length:
            raise ValueError("truncated frame payload")
        yield Frame(kind, flags, stream_id, message[position : position + length])
        position += length
