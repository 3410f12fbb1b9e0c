"""The PROXY protocol, version 2: who really connected, told by the load balancer in front. Pure.

After HAProxy's specification (doc/proxy-protocol.txt, section 2.2), for TCP:

    signature (12)  version and command (1)  family and protocol (1)  length (2)  addresses  TLVs

What is in the TLVs is skipped, but counted. Version 1, a text line, is not spoken: its end must be searched for in
bytes that may belong to what follows.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from shared.tcp.head import Ends

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = 16
"""Bytes up to the addresses; they say how many follow."""

MAX_LENGTH: Final = 2048
"""Bytes of addresses and TLVs that are borne. The specification's own buffers hold 520."""

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESSES: Final = {_TCP4: (4, struct.Struct(">4s4sHH")), _TCP6: (6, struct.Struct(">16s16sHH"))}


class BadProxyHeader(ValueError):
    """What came is no PROXY header that can be used; the text is for our own log."""


class ProxyHeader(NamedTuple):
    """`size` is that of the whole header in bytes; `ends` None: the load balancer speaks for itself (LOCAL)."""

    size: int
    ends: Ends | None


def encode(ends: Ends | None) -> bytes:
    """Write a header. None: the connection is our own (LOCAL), as when nobody knows who sent."""
    if ends is None:
        return SIGNATURE + bytes((_LOCAL, _UNSPECIFIED, 0, 0))
    source, destination = ipaddress.ip_address(ends.source), ipaddress.ip_address(ends.destination)
    if source.version != destination.version:
        raise ValueError("two families of addresses in one header")
    kind = _TCP4 if source.version == 4 else _TCP6
    packed = _ADDRESSES[kind][1].pack(source.packed, destination.packed, ends.source_port, ends.destination_port)
    return SIGNATURE + struct.pack(">BBH", _PROXY, kind, len(packed)) + packed


def size_of(start: bytes) -> int:
    """How many bytes the whole header has that begins with `start`: FIXED as long as that cannot be told yet.

    Raises BadProxyHeader as soon as it cannot be one.
    """
    if start[:12] != SIGNATURE[: len(start)]:
        raise BadProxyHeader("not the signature of version 2")
    if len(start) < FIXED:
        return FIXED
    length = int.from_bytes(start[14:16], "big")
    if length > MAX_LENGTH:
        raise BadProxyHeader(f"{length} bytes of addresses")
    return FIXED + length


def decode(header: bytes) -> ProxyHeader:
    """Read a whole header, of exactly `size_of` bytes. Raises BadProxyHeader."""
    if len(header) < FIXED or size_of(header) != len(header):
        raise BadProxyHeader("cut short")
    command, kind = header[12], header[13]
    if command == _LOCAL:
        return ProxyHeader(len(header), None)
    if command != _PROXY:
        raise BadProxyHeader(f"version and command {command:#04x}")
    if kind not in _ADDRESSES:
        raise BadProxyHeader(f"family and protocol {kind:#04x}")
    version, layout = _ADDRESSES[kind]
    if len(header) < FIXED + layout.size:
        raise BadProxyHeader("the addresses are cut short")
    source, destination, source_port, destination_port = layout.unpack_from(header, FIXED)
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return ProxyHeader(len(header), Ends(str(make(source)), source_port, str(make(destination)), destination_port))
