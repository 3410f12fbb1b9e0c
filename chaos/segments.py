"""TCP segments cut into smaller ones: a stream that arrives in pieces of one byte, as no sender ever sends it.

Only IPv4 without fragments; anything else passes as it is. Checksums are made anew (RFC 9293 §3.1, RFC 791 §3.1).
"""

from __future__ import annotations

import struct
from typing import Final

_TCP: Final = 6
_FIN, _SYN, _RST, _PSH = 0x01, 0x02, 0x04, 0x08


def cut(packet: bytes, size: int, most: int) -> list[bytes]:
    """The packet's payload in segments of `size` bytes, `most` of them; the last one holds the rest."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return [packet]
    ip_end = (packet[0] & 15) * 4
    total, fragment = struct.unpack_from("!H2xH", packet, 2)
    tcp_end = ip_end + (packet[ip_end + 12] >> 4) * 4
    payload = packet[tcp_end:total]
    flags = packet[ip_end + 13]
    if fragment & 0x3FFF or len(payload) <= size or flags & (_SYN | _RST):
        return [packet]
    ends = [*range(size, min(len(payload), size * most), size)][: most - 1]
    pieces = [payload[start:end] for start, end in zip([0, *ends], [*ends, len(payload)], strict=True)]
    sequence: int = struct.unpack_from("!I", packet, ip_end + 4)[0]
    made, done = [], 0
    for piece in pieces:
        is_last = done + len(piece) == len(payload)
        head = bytearray(packet[:tcp_end])
        struct.pack_into("!I", head, ip_end + 4, (sequence + done) & 0xFFFFFFFF)
        head[ip_end + 13] = flags if is_last else flags & ~(_FIN | _PSH)
        made.append(_sealed(head, ip_end, piece))
        done += len(piece)
    return made


def _sealed(head: bytearray, ip_end: int, payload: bytes) -> bytes:
    """The packet with its length and both checksums."""
    struct.pack_into("!H", head, 2, len(head) + len(payload))
    struct.pack_into("!H", head, 10, 0)
    struct.pack_into("!H", head, 10, checksum(head[:ip_end]))
    struct.pack_into("!H", head, ip_end + 16, 0)
    segment = bytes(head[ip_end:]) + payload
    pseudo = bytes(head[12:20]) + struct.pack("!HH", _TCP, len(segment))
    struct.pack_into("!H", head, ip_end + 16, checksum(pseudo + segment))
    return bytes(head) + payload


def checksum(data: bytes | bytearray) -> int:
    """The internet checksum (RFC 1071); 0 over data that holds its own."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
