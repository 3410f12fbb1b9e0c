"""Whom the caps per source count: an IPv4 address, or an IPv6 network of 64 bits, for a host may use all of one."""

from __future__ import annotations

import socket
from typing import Final

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""RFC 4291 §2.5.5.2: an IPv4 address seen through an IPv6 socket."""


def source_key(address: str) -> str:
    """What connections from `address`, as a socket names its peer, count under."""
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"
